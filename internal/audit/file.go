package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// File is a log of JSON lines. Entries that come together are made durable together: one write and one fsync for all that
// wait.
type File struct {
	*queue
	file file
}

// file is what a log needs of a file.
type file interface {
	io.Writer
	io.Closer
	Sync() error
	Truncate(size int64) error
	Seek(offset int64, whence int) (int64, error)
}

// OpenFile opens a log, and goes on where it ends. Half a line, which a crash may have left, is cut off: its entry was
// never acknowledged. A log has one writer: it is an error while another has it open. An empty path or a hyphen means
// standard output, where nothing is made durable and numbers begin anew.
func OpenFile(path string) (*File, error) {
	if path == "" || path == "-" {
		return start(stdout{os.Stdout}, 0, 0), nil
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log: %w", err)
	}
	opened, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // The path is the operator's own flag.
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	seq, end, err := claim(opened, folder)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the audit log %s: %w", path, err), opened.Close())
	}
	return start(opened, seq, end), nil
}

// claim makes a file ours alone and ready to be written on. It returns the number of its last entry and where it ends.
func claim(opened *os.File, folder string) (seq, end int64, err error) {
	// Two writers would write over each other's entries.
	if err := syscall.Flock(int(opened.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return 0, 0, fmt.Errorf("lock it, which another process may have done: %w", err)
	}
	if seq, end, err = resume(opened); err != nil {
		return 0, 0, err
	}
	if _, err := opened.Seek(end, io.SeekStart); err != nil {
		return 0, 0, fmt.Errorf("find its end: %w", err)
	}
	// A file that is durable in a folder that is not may be gone after a crash.
	if err := SyncFolder(folder); err != nil {
		return 0, 0, fmt.Errorf("make its folder durable: %w", err)
	}
	return seq, end, nil
}

// SyncFolder makes it durable that a file is in a folder.
func SyncFolder(path string) error {
	folder, err := os.Open(path) //nolint:gosec // It is the folder of the operator's own flag.
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// stdout is a file that nothing makes durable.
type stdout struct{ io.Writer }

func (stdout) Close() error                   { return nil }
func (stdout) Sync() error                    { return nil }
func (stdout) Seek(int64, int) (int64, error) { return 0, nil }

// Truncate ends the half line that cannot be taken back, so that the next entry has a line of its own.
func (s stdout) Truncate(int64) error {
	_, err := s.Write([]byte("\n"))
	return err
}

func start(f file, seq, end int64) *File {
	l := &File{file: f, queue: newQueue()}
	go l.commit(seq, end)
	return l
}

// Close makes durable what waits, and closes the file.
func (l *File) Close() error {
	if !l.shut() {
		return nil
	}
	return l.file.Close()
}

// commit makes durable what is offered, all that waits at once. The log has seq entries in end bytes.
func (l *File) commit(seq, end int64) {
	defer close(l.done)
	var broken error
	for first := range l.offers {
		group := l.gather(first)
		if broken != nil {
			// What a failed write left behind must go before anything follows it.
			broken = l.repair(end)
		}
		if broken == nil {
			lines := numbered(group, seq)
			if broken = l.write(lines); broken == nil {
				seq += int64(len(group))
				end += int64(len(lines))
			}
		}
		for _, o := range group {
			o.told <- broken
		}
	}
}

// opening is how each line of a log begins.
const opening = `{"seq":`

// numbered returns the lines of a group that follows seq entries.
func numbered(group []*offer, seq int64) []byte {
	var lines []byte
	for i, o := range group {
		lines = append(lines, opening...)
		lines = strconv.AppendInt(lines, seq+int64(i)+1, 10)
		lines = append(lines, ',')
		lines = append(lines, o.body[1:]...)
		lines = append(lines, '\n')
	}
	return lines
}

func (l *File) write(lines []byte) error {
	if _, err := l.file.Write(lines); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("make the audit log durable: %w", err)
	}
	return nil
}

// repair cuts off what was written after the last entry that was acknowledged.
func (l *File) repair(end int64) error {
	if err := l.file.Truncate(end); err != nil {
		return fmt.Errorf("cut off a broken end of the audit log: %w", err)
	}
	if _, err := l.file.Seek(end, io.SeekStart); err != nil {
		return fmt.Errorf("find the end of the audit log: %w", err)
	}
	return nil
}

// tail is how much of a log's end is read to find its last line. A line is never as long.
const tail = 1 << 20

// resume cuts off half a line at the end of a log. It returns the number of the last entry and where the log ends. A file
// that is not a log is left as it is.
func resume(f *os.File) (seq, size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	from := max(0, info.Size()-tail)
	end := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(end, from); err != nil {
		return 0, 0, err
	}
	whole := bytes.LastIndexByte(end, '\n') + 1
	if !torn(end[whole:]) || (whole == 0 && from > 0) {
		return 0, 0, errors.New("what follows its last line is no half of an entry: is this an audit log?")
	}
	if whole > 0 {
		if seq, err = lastOf(end[:whole-1]); err != nil {
			return 0, 0, err
		}
	}
	size = from + int64(whole)
	if err := f.Truncate(size); err != nil {
		return 0, 0, fmt.Errorf("cut off half a line: %w", err)
	}
	return seq, size, nil
}

// torn says whether a crash may have left this of an entry: nothing, its beginning, or zeros where its bytes were to be.
func torn(rest []byte) bool {
	known := min(len(rest), len(opening))
	return string(rest[:known]) == opening[:known] || len(bytes.Trim(rest, "\x00")) == 0
}

// lastOf returns the number of the last of some lines.
func lastOf(lines []byte) (int64, error) {
	last := Entry{}
	if err := json.Unmarshal(lines[bytes.LastIndexByte(lines, '\n')+1:], &last); err != nil {
		return 0, fmt.Errorf("its last line is no entry: %w", err)
	}
	if last.Seq < 1 {
		return 0, errors.New("its last line is no entry: it has no number")
	}
	return last.Seq, nil
}
