package gateway

import (
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/test/gen"
)

// BenchmarkGet is a get through the gateway, with the record durable, beside the same get without it.
func BenchmarkGet(b *testing.B) {
	w := open(b)
	w.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<10)) })
	log, err := audit.OpenFile(filepath.Join(b.TempDir(), "audit.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = log.Close() })
	w.gateway.journal.log = log
	g := w.grant("case-1")
	client := w.client()
	path := "/api/v1/namespaces/" + gen.Namespace + "/configmaps/kib"
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			response, err := w.ask(client, g.token, http.MethodGet, path)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
				b.Errorf("%s: %v", response.Status, err)
			}
			_ = response.Body.Close()
		}
	})
}
