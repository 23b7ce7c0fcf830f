package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/audit/chain"
)

// Copy carries a log, line by line, to a file or to standard output, for others to carry it on. What went over streams stays in
// the log: it is long, and what pods print is not for everybody who reads the gateway's output. A copy comes after the log:
// nobody waits for it, and what it could not write it writes later. A file says by its last line where to go on. Standard
// output says nothing: there a copy begins with what is new.
type Copy struct {
	From   Reader
	Path   string
	Clock  clock.Clock
	Logger logr.Logger
	// Measures count what went wrong; nil for nobody.
	Measures *Measures
}

// copyEvery is how long a copy may lag behind.
const copyEvery = time.Second

// Start copies until the context ends.
func (c *Copy) Start(ctx context.Context) error {
	to, at, err := c.open(ctx)
	if err != nil {
		return fmt.Errorf("open the copy of the audit log: %w", err)
	}
	for {
		if err := c.catchUp(ctx, to, &at); err != nil && ctx.Err() == nil {
			c.Measures.CopyFailed()
			c.Logger.Error(err, "The audit log could not be copied, and will be later", "path", c.Path, "from", at.seq+1)
		}
		timer := c.Clock.NewTimer(copyEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			// What came last, for as long as it takes to stop.
			return errors.Join(c.catchUp(context.WithoutCancel(ctx), to, &at), to.Close())
		case <-timer.C():
		}
	}
}

// place is where a copy ends: the number of its last entry, and how many bytes it has.
type place struct{ seq, end int64 }

func (c *Copy) open(ctx context.Context) (file, place, error) {
	if c.Path == "-" {
		standing, err := c.From.Load(ctx)
		if err != nil || standing == nil {
			return stdout{os.Stdout}, place{}, err
		}
		return stdout{os.Stdout}, place{seq: standing.Size}, nil
	}
	folder := filepath.Dir(c.Path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, place{}, err
	}
	opened, err := os.OpenFile(c.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, place{}, err
	}
	seq, end, err := claim(opened, folder)
	if err != nil {
		return nil, place{}, errors.Join(err, opened.Close())
	}
	return opened, place{seq, end}, nil
}

// catchUp copies what the log has and the copy has not.
func (c *Copy) catchUp(ctx context.Context, to file, at *place) error {
	for {
		lines, err := c.From.Lines(ctx, at.seq+1, 1<<62)
		if err != nil || len(lines) == 0 {
			return err
		}
		var text bytes.Buffer
		for _, line := range lines {
			if isPiece(line.Text) {
				continue
			}
			text.Write(line.Text)
			text.WriteByte('\n')
		}
		if text.Len() == 0 {
			at.seq = lines[len(lines)-1].Seq
			continue
		}
		if err := write(to, text.Bytes(), at.end); err != nil {
			return err
		}
		at.seq, at.end = lines[len(lines)-1].Seq, at.end+int64(text.Len())
	}
}

// isPiece says whether a line is a piece of a recording. Its type comes first, before all that somebody else could have written.
func isPiece(line []byte) bool {
	_, rest, err := chain.Parse(line)
	return err == nil && bytes.HasPrefix(rest, []byte(`"type":"`+string(TypeRecording)+`"`))
}

// write makes text durable at a file's end, where nothing of it is left if that fails.
func write(to file, text []byte, end int64) error {
	_, err := to.Write(text)
	if err == nil {
		err = to.Sync()
	}
	if err == nil {
		return nil
	}
	cut := to.Truncate(end)
	_, back := to.Seek(end, io.SeekStart)
	return errors.Join(err, cut, back)
}
