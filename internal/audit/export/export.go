// Package export knows which writer makes each format of an export. It knows nobody who asks for one.
package export

import (
	"context"
	"io"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/ocsf"
)

// Write writes the entries that a query asks for in a format that audit.CheckFormat knows: the whole log for who asks for
// nothing in particular.
func Write(ctx context.Context, w io.Writer, s audit.Reader, q audit.Query, format string) error {
	switch {
	case format == "csv":
		return audit.ExportCSV(ctx, w, s, q)
	case format == "ocsf":
		return ocsf.Export(ctx, w, s, q)
	case q == audit.Query{}:
		return audit.Export(ctx, w, s)
	default:
		return audit.ExportFound(ctx, w, s, q)
	}
}
