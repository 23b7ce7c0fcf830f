package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
)

// person is how the API wants an engineer to be named.
var person = regexp.MustCompile(`^[a-z0-9][a-z0-9._+-]*(@[a-z0-9.-]+)?$`)

// errNoEngineer says that nobody was named.
var errNoEngineer = errors.New("--engineer: is missing: name the person, such as --engineer ana@vendor.example")

// parseEngineers reads people, each of whom is named once.
func parseEngineers(texts []string, readFile func(string) ([]byte, error)) ([]v1alpha1.Engineer, error) {
	var engineers []v1alpha1.Engineer
	var errs []error
	for _, text := range texts {
		engineer, err := parseEngineer(text, readFile)
		switch {
		case err != nil:
			errs = append(errs, err)
		case slices.ContainsFunc(engineers, func(e v1alpha1.Engineer) bool { return e.Name == engineer.Name }):
			errs = append(errs, fmt.Errorf("--engineer: %s is named twice", engineer.Name))
		default:
			engineers = append(engineers, engineer)
		}
	}
	return engineers, errors.Join(errs...)
}

// parseEngineer reads NAME, NAME=KEY or NAME=@FILE. The file is one that ends in .pub, or an age recipient's.
func parseEngineer(text string, readFile func(string) ([]byte, error)) (v1alpha1.Engineer, error) {
	name, key, hasKey := strings.Cut(text, "=")
	if !person.MatchString(name) {
		return v1alpha1.Engineer{}, fmt.Errorf("--engineer: %q is no name: write it in lower case, such as ana@vendor.example", name)
	}
	if !hasKey {
		return v1alpha1.Engineer{Name: name}, nil
	}
	if path, isFile := strings.CutPrefix(key, "@"); isFile {
		content, err := readFile(path)
		if err != nil {
			return v1alpha1.Engineer{}, fmt.Errorf("--engineer: read the public key of %s: %w", name, err)
		}
		if key, err = publicKeyIn(string(content)); err != nil {
			return v1alpha1.Engineer{}, fmt.Errorf("--engineer: %s: %s: %w", name, path, err)
		}
	}
	if isPrivateKey(key) {
		return v1alpha1.Engineer{}, fmt.Errorf("--engineer: %s: this is a private key: give the public one, and treat the private one as known to others", name)
	}
	if !strings.HasPrefix(key, "age1") && !strings.HasPrefix(key, "ssh-ed25519 ") {
		return v1alpha1.Engineer{}, fmt.Errorf("--engineer: %s: give an age recipient (age1…), an ssh-ed25519 public key, or @ and the file that holds one", name)
	}
	if err := access.CheckPublicKey(key); err != nil {
		return v1alpha1.Engineer{}, fmt.Errorf("--engineer: %s: %w", name, err)
	}
	return v1alpha1.Engineer{Name: name, PublicKey: key}, nil
}

// publicKeyIn returns the one public key of a file: its only line that is neither empty nor a comment.
func publicKeyIn(content string) (string, error) {
	if isPrivateKey(content) {
		return "", fmt.Errorf("holds a private key: give the file of the public one")
	}
	var keys []string
	for line := range strings.Lines(content) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if len(keys) != 1 {
		return "", fmt.Errorf("holds %d keys: one is wanted", len(keys))
	}
	return keys[0], nil
}

// isPrivateKey reports whether text has what only a private key has.
func isPrivateKey(text string) bool {
	return strings.Contains(text, "AGE-SECRET-KEY-") || strings.Contains(text, "PRIVATE KEY-----")
}
