package cli

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"filippo.io/age"
)

const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN5q0mZz44EMsnAQrQd6IcL7ORuikNbUVp2zYFIQW6vz"

func TestAnEngineerIsANameAndMaybeAPublicKey(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipient := identity.Recipient().String()
	files := map[string]string{
		"ana.pub": sshKey + " ana@laptop\n",
		"ana.txt": "# created: today\n\n" + recipient + "\n",
		"two.pub": sshKey + "\n" + sshKey + "\n",
		"none":    "# nothing\n",
		"key.txt": "# public key: " + recipient + "\n" + identity.String() + "\n",
		"id":      "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
	}
	readFile := func(path string) ([]byte, error) {
		content, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(content), nil
	}
	for text, want := range map[string]string{
		"ana@vendor.example":                       "",
		"ana":                                      "",
		"ana@vendor.example=" + recipient:          recipient,
		"ana@vendor.example=" + sshKey:             sshKey,
		"ana@vendor.example=@ana.pub":              sshKey + " ana@laptop",
		"ana@vendor.example=@ana.txt":              recipient,
		"Ana@vendor.example":                       "!lower case",
		"":                                         `!--engineer: "" is no name`,
		"=" + recipient:                            "!is no name",
		"ana@vendor.example=":                      "!give an age recipient",
		"ana@vendor.example=ssh-rsa AAAA":          "!give an age recipient",
		"ana@vendor.example=age1qqqq":              "!parse age recipient",
		"ana@vendor.example=@missing":              "!read the public key of ana@vendor.example: open missing",
		"ana@vendor.example=@two.pub":              "!holds 2 keys: one is wanted",
		"ana@vendor.example=@none":                 "!holds 0 keys",
		"ana@vendor.example=@key.txt":              "!holds a private key",
		"ana@vendor.example=@id":                   "!holds a private key",
		"ana@vendor.example=" + identity.String():  "!this is a private key",
		"ana@vendor.example,ben@vendor.example":    "!is no name",
		"system:serviceaccount:flux-system:deploy": "!is no name",
	} {
		engineer, err := parseEngineer(text, readFile)
		wrong, isWrong := strings.CutPrefix(want, "!")
		switch {
		case isWrong && (err == nil || !strings.Contains(err.Error(), wrong)):
			t.Errorf("%q: got %v, want %q", text, err, wrong)
		case isWrong && strings.Contains(err.Error(), identity.String()):
			t.Errorf("%q: the error has the private key", text)
		case !isWrong && (err != nil || engineer.PublicKey != want || !strings.HasPrefix(text, engineer.Name)):
			t.Errorf("%q: got %+v, %v, want key %q", text, engineer, err, want)
		}
	}
	if _, err := parseEngineer("ana=@missing", readFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file is %v", err)
	}
}
