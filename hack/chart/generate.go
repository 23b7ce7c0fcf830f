package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// generatedDirs hold nothing that a person wrote.
var generatedDirs = []string{"charts/support-access/crds", "charts/support-access/templates/generated"}

const (
	crdsDir      = "charts/support-access/crds"
	templatesDir = "charts/support-access/templates/generated"
	schemaPath   = "charts/support-access/values.schema.json"

	policyCRD     = "config/crd/supportaccess.dev_supportaccesspolicies.yaml"
	schemaSource  = "hack/chart/values.schema.json"
	rbacSource    = "config/controller/rbac.yaml"
	mutating      = "stamps-mutating.yaml"
	kustomization = "kustomization.yaml"
)

// generate returns every generated file by its path under root.
func generate(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, add := range []func(string, map[string][]byte) error{addCRDs, addGuards, addAdmission, addRoles, addController, addGateway, addSchema} {
		if err := add(root, files); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// addCRDs writes each CRD twice. Helm applies crds/ before anything else and waits until the API server serves it, so
// that the default policy can be in the same release; but it never upgrades or deletes what is there. The copy among the
// templates takes the CRD over into the release, which is why both name the same owner.
func addCRDs(root string, files map[string][]byte) error {
	return eachSource(root, "config/crd", func(name string, m manifest) error {
		name = strings.TrimPrefix(name, "supportaccess.dev_")
		files[filepath.Join(crdsDir, name)] = m.owned().bytes()
		files[filepath.Join(templatesDir, "crds", name)] = m.escaped().labelled().kept().when(".Values.crds.enabled").bytes()
		return nil
	})
}

// addGuards writes the policies against deleting the CRDs and about flags. They are no part of what the operator looks for: a
// cluster may do without.
func addGuards(root string, files map[string][]byte) error {
	for _, g := range []struct{ source, path, value string }{
		{"config/crdguard/guard.yaml", "crds/guard.yaml", ".Values.guardCRDs.enabled"},
		{"config/flagguard/guard.yaml", "flags.yaml", ".Values.guardFlags.enabled"},
	} {
		m, err := read(root, g.source)
		if err != nil {
			return err
		}
		files[filepath.Join(templatesDir, g.path)] = m.escaped().labelled().when(g.value).bytes()
	}
	return nil
}

func addAdmission(root string, files map[string][]byte) error {
	excepting := 0
	err := eachSource(root, "config/admission", func(name string, m manifest) error {
		m, lists, err := m.escaped().labelled().exceptingUsers()
		if err != nil {
			return err
		}
		excepting += lists
		if name == mutating {
			m = m.when(`eq .Values.admission.stamp "Policy"`)
		}
		files[filepath.Join(templatesDir, "admission", name)] = m.bytes()
		return nil
	})
	if err != nil {
		return err
	}
	if excepting == 0 {
		return fmt.Errorf("config/admission: no policy has the variable systemUsers, which the value extraSystemUsers extends")
	}
	return nil
}

func addRoles(root string, files map[string][]byte) error {
	return eachSource(root, "config/roles", func(name string, m manifest) error {
		files[filepath.Join(templatesDir, "roles", name)] = m.escaped().labelled().bytes()
		return nil
	})
}

func addController(root string, files map[string][]byte) error {
	m, err := read(root, rbacSource)
	if err != nil {
		return err
	}
	if m, err = m.escaped().labelled().binding(); err != nil {
		return err
	}
	files[filepath.Join(templatesDir, "controller-rbac.yaml")] = m.bytes()
	if m, err = read(root, "config/controller/banner.yaml"); err != nil {
		return err
	}
	files[filepath.Join(templatesDir, "banner-rbac.yaml")] = m.escaped().labelled().when(".Values.banner.enabled").bytes()
	return nil
}

// eachSource calls use for each manifest of a folder.
func eachSource(root, dir string, use func(name string, m manifest) error) error {
	paths, err := filepath.Glob(filepath.Join(root, dir, "*.yaml"))
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		if name == kustomization {
			continue
		}
		m, err := read(root, filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := use(name, m); err != nil {
			return err
		}
	}
	return nil
}

func read(root, path string) (manifest, error) {
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return manifest{}, fmt.Errorf("read %s: %w", path, err)
	}
	return parse(path, content), nil
}
