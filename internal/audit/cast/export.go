package cast

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"

	"supportaccess.dev/operator/internal/audit"
)

// Export finds one recording in an export of the log that lies in a file. It does not verify: audit verify does.
type Export struct {
	// ID is the number of the request.
	ID string

	from  io.ReaderAt
	lines []place
}

// place is where in the file an entry of the recording lies.
type place struct {
	seq, offset int64
	length      int
}

// maxExportLine is how long a line of an export may be: an entry has 128 KiB, and a proof less.
const maxExportLine = 1 << 20

var (
	// ErrNoExport is the answer where a file is no export of an audit log.
	ErrNoExport = errors.New("this is no export of an audit log")
	// ErrNotWhole is the answer where filters chose what is in an export: no recording is.
	ErrNotWhole = errors.New("what filters found has no recordings: export the whole log, with support-access audit export in the gateway's pod")
)

// OpenExport looks in an export for a recording, by the auditID of the request or the number of an entry about it.
func OpenExport(from io.ReaderAt, entry string) (*Export, error) {
	x := &Export{ID: entry, from: from}
	seq, err := strconv.ParseInt(entry, 10, 64)
	if err == nil {
		x.ID = ""
		if err := x.each(func(e *audit.Entry, _ place) {
			if e.Seq == seq {
				x.ID = string(e.AuditID)
			}
		}); err != nil {
			return nil, err
		}
		if x.ID == "" {
			return nil, fmt.Errorf("entry %d is not in this export, or it is of no request", seq)
		}
	}
	return x, x.each(func(e *audit.Entry, at place) {
		if e.AuditID == types.UID(x.ID) && e.Recording != nil {
			x.lines = append(x.lines, at)
		}
	})
}

// each reads the file from its beginning, and does something with every entry.
func (x *Export) each(do func(*audit.Entry, place)) error {
	lines := bufio.NewScanner(io.NewSectionReader(x.from, 0, 1<<62))
	lines.Buffer(make([]byte, 64<<10), maxExportLine)
	offset, first := int64(0), true
	for lines.Scan() {
		line := lines.Bytes()
		if first {
			header := audit.ExportHeader{}
			if err := json.Unmarshal(line, &header); err != nil || header.Kind != audit.ExportKind {
				return ErrNoExport
			}
			if !header.Whole {
				return ErrNotWhole
			}
			first = false
		} else if err := visit(line, offset, do); err != nil {
			return err
		}
		offset += int64(len(line)) + 1
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the export at byte %d: %w", offset, err)
	}
	if first {
		return ErrNoExport
	}
	return nil
}

// visit reads one line. Checkpoints and proofs are no entries.
func visit(line []byte, offset int64, do func(*audit.Entry, place)) error {
	e := &audit.Entry{}
	if err := json.Unmarshal(line, e); err != nil {
		return fmt.Errorf("read the export at byte %d: %w", offset, err)
	}
	if e.Seq > 0 {
		do(e, place{seq: e.Seq, offset: offset, length: len(line)})
	}
	return nil
}

// Find returns the entries of the recording between the numbers that a query names, the newest first; the query asks for
// nothing else.
func (x *Export) Find(_ context.Context, q audit.Query) (audit.Page, error) {
	var page audit.Page
	for _, at := range slices.Backward(x.lines) {
		if q.Below > 0 && at.seq >= q.Below || at.seq <= q.Above {
			continue
		}
		if q.Limit > 0 && len(page.Lines) == q.Limit {
			page.Next = page.Lines[len(page.Lines)-1].Seq
			break
		}
		text := make([]byte, at.length)
		if _, err := x.from.ReadAt(text, at.offset); err != nil {
			return audit.Page{}, fmt.Errorf("read entry %d of the export: %w", at.seq, err)
		}
		page.Lines = append(page.Lines, audit.Line{Seq: at.seq, Text: text})
	}
	return page, nil
}
