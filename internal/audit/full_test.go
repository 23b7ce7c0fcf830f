package audit_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

// diskSize is how large a file may become while the disk is full: a few hundred entries.
const diskSize = 2 << 20

// TestOnAFullDiskNothingIsAcknowledgedThatIsNotKeptAndWithRoomItGoesOn has a process write whose files may not grow, as on a
// disk that is full, and then may.
func TestOnAFullDiskNothingIsAcknowledgedThatIsNotKeptAndWithRoomItGoesOn(t *testing.T) {
	if folder := os.Getenv("AUDIT_TEST_CRASH"); folder != "" {
		writeToAFullDisk(t, folder)
		return
	}
	folder := t.TempDir()
	child := startWriter(t, "TestOnAFullDiskNothingIsAcknowledgedThatIsNotKeptAndWithRoomItGoesOn", "sqlite", folder)
	acknowledged, refused, after := map[string]bool{}, 0, 0
	var last string
	for child.out.Scan() {
		switch word, rest, _ := strings.Cut(child.out.Text(), " "); word {
		case "kept":
			acknowledged[rest] = true
			if refused > 0 {
				after++
			}
		case "refused":
			refused++
		default:
			last = child.out.Text()
		}
	}
	if err := child.Wait(); err != nil {
		t.Fatalf("%v: %s", err, last)
	}
	if refused < 20 || after < 20 || len(acknowledged) < 100 {
		t.Errorf("%d were kept, %d refused, %d kept after that", len(acknowledged), refused, after)
	}
	store := stores["sqlite"](t, folder)
	text := exported(t, store)
	mustVerify(t, text, nil)
	for _, e := range entriesOf(t, text) {
		delete(acknowledged, string(e.AuditID))
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d were acknowledged and are not on record", len(acknowledged))
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// writeToAFullDisk writes until nothing is taken any more, goes on trying, and then has room again.
func writeToAFullDisk(t *testing.T, folder string) {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	log := resume(t, stores["sqlite"](t, folder), []byte(os.Getenv("AUDIT_TEST_KEY")))
	number := 0
	write := func() error {
		number++
		e := sample(int64(number))
		e.AuditID = types.UID(fmt.Sprintf("n%d", number))
		err := log.Append(context.Background(), e)
		if err == nil {
			fmt.Println("kept", e.AuditID)
		}
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: diskSize, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	for write() == nil {
		if number == 100_000 {
			t.Fatal("the disk is not full")
		}
	}
	for range 20 {
		if write() == nil {
			t.Fatal("a full disk takes an entry")
		}
		fmt.Println("refused")
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return write() == nil, nil
	}); err != nil {
		t.Fatalf("with room nothing is taken: %v", write())
	}
	for range 20 {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	os.Exit(0)
}
