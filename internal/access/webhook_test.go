package access

import (
	"strings"
	"testing"
)

func TestOnlyWhoHasTheKeyKnowsWhereActsAreTold(t *testing.T) {
	key := []byte("a key")
	path := PathOfActs(key)
	if !IsPathOfActs(path, key) || len(path) < len(ActsPath)+64 {
		t.Fatalf("%s is not the path", path)
	}
	for _, other := range []string{"", ActsPath, path[:len(path)-1], path + "/", strings.ToUpper(path), PathOfActs([]byte("another"))} {
		if IsPathOfActs(other, key) {
			t.Errorf("%q is taken for the path", other)
		}
	}
	for _, none := range [][]byte{nil, {}} {
		if IsPathOfActs(PathOfActs(none), none) {
			t.Error("without a key there is a path")
		}
	}
}
