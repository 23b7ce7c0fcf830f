package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// File is a log of JSON lines. Entries that come together are made durable together: one write and one fsync for all that
// wait.
type File struct {
	file   file
	offers chan *offer
	done   chan struct{}

	mu     sync.RWMutex
	closed bool
}

// file is what a log needs of a file.
type file interface {
	io.Writer
	io.Closer
	Sync() error
	Truncate(size int64) error
	Seek(offset int64, whence int) (int64, error)
}

// offer is an entry that waits to become durable.
type offer struct {
	entry *Entry
	// told gets the outcome. It has room for it, so that nobody waits for who has gone.
	told chan error
}

const (
	// waiting is how many entries may wait. Whoever comes after them waits to wait.
	waiting = 1024
	// batch is how many entries are made durable at once.
	batch = 256
)

// errClosed is the answer of a log that was closed.
var errClosed = errors.New("the audit log is closed")

// OpenFile opens a log, and goes on where it ends. Half a line, which a crash may have left, is cut off: its entry was
// never acknowledged. An empty path or a hyphen means standard output, where nothing is made durable.
func OpenFile(path string) (*File, error) {
	if path == "" || path == "-" {
		return start(stdout{os.Stdout}, 0), nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log: %w", err)
	}
	opened, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	seq, err := resume(opened)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the end of the audit log %s: %w", path, err), opened.Close())
	}
	return start(opened, seq), nil
}

// stdout is a file that nothing makes durable.
type stdout struct{ io.Writer }

func (stdout) Close() error                   { return nil }
func (stdout) Sync() error                    { return nil }
func (stdout) Truncate(int64) error           { return nil }
func (stdout) Seek(int64, int) (int64, error) { return 0, nil }

func start(f file, seq int64) *File {
	l := &File{file: f, offers: make(chan *offer, waiting), done: make(chan struct{})}
	go l.commit(seq)
	return l
}

// Append returns when the entry is durable.
func (l *File) Append(ctx context.Context, e *Entry) error {
	made := &offer{entry: e, told: make(chan error, 1)}
	l.mu.RLock()
	if l.closed {
		l.mu.RUnlock()
		return errClosed
	}
	select {
	case l.offers <- made:
		l.mu.RUnlock()
	case <-ctx.Done():
		l.mu.RUnlock()
		return fmt.Errorf("wait for the audit log: %w", ctx.Err())
	}
	select {
	case err := <-made.told:
		return err
	case <-ctx.Done():
		// It may become durable yet. That something is on record which was not done does no harm.
		return fmt.Errorf("wait for the audit log: %w", ctx.Err())
	}
}

// Close makes durable what waits, and closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.offers)
	l.mu.Unlock()
	<-l.done
	return l.file.Close()
}

// commit makes durable what is offered, all that waits at once.
func (l *File) commit(seq int64) {
	defer close(l.done)
	end, err := l.file.Seek(0, io.SeekEnd)
	broken := err
	for first := range l.offers {
		group := l.gather(first)
		if broken != nil {
			// What a failed write left behind must go before anything follows it.
			broken = l.repair(end)
		}
		if broken == nil {
			var lines []byte
			lines, broken = encode(group, seq)
			if broken == nil {
				broken = l.write(lines)
			}
			if broken == nil {
				seq += int64(len(group))
				end += int64(len(lines))
			}
		}
		for _, o := range group {
			o.told <- broken
		}
	}
}

// gather takes all that waits, up to a batch.
func (l *File) gather(first *offer) []*offer {
	group := []*offer{first}
	for len(group) < batch {
		select {
		case next, open := <-l.offers:
			if !open {
				return group
			}
			group = append(group, next)
		default:
			return group
		}
	}
	return group
}

func encode(group []*offer, seq int64) ([]byte, error) {
	var lines bytes.Buffer
	for i, o := range group {
		numbered := *o.entry
		numbered.Seq = seq + int64(i) + 1
		line, err := json.Marshal(&numbered)
		if err != nil {
			return nil, fmt.Errorf("write an audit entry: %w", err)
		}
		lines.Write(line)
		lines.WriteByte('\n')
	}
	return lines.Bytes(), nil
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

// resume cuts off half a line at the end of a log and returns the number of its last entry.
func resume(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	from := max(0, info.Size()-tail)
	end := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(end, from); err != nil {
		return 0, err
	}
	whole := bytes.LastIndexByte(end, '\n') + 1
	if whole == 0 && from > 0 {
		return 0, errors.New("it does not end in a line: is this an audit log?")
	}
	if err := f.Truncate(from + int64(whole)); err != nil {
		return 0, err
	}
	if whole == 0 {
		return 0, nil
	}
	lines := bytes.Split(bytes.TrimSuffix(end[:whole], []byte("\n")), []byte("\n"))
	last := Entry{}
	if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil {
		return 0, fmt.Errorf("its last line is no entry: %w", err)
	}
	return last.Seq, nil
}
