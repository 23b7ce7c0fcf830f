// Command chart writes those parts of charts/support-access that are copies of config/: the CRDs, the admission
// policies, the roles, the controller's rights and the schema of the values. Run it from the root of the repository. It
// knows the shape of those files, line by line, so that their comments stay.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, "chart: "+err.Error())
		os.Exit(1)
	}
}

// write replaces every generated file under root, and removes those that have no source any more.
func write(root string) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	for _, dir := range generatedDirs {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			return fmt.Errorf("clear %s: %w", dir, err)
		}
	}
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make a folder for %s: %w", path, err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}
