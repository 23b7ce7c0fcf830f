package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
)

// flags say which objects of a namespace are released because they bear a flag.
type flags struct {
	resources []schema.GroupResource
	selector  labels.Selector
}

// flagsIn returns what a policy releases, nil if that is nothing. A selector that cannot be read, which the API server does not
// store, releases nothing, nor does one that asks for nothing.
func flagsIn(p *v1alpha1.SupportAccessPolicy) *flags {
	said := p.Spec.FlaggedContent
	if said == nil {
		return nil
	}
	selector := &metav1.LabelSelector{MatchLabels: said.Selector.MatchLabels}
	for _, e := range said.Selector.MatchExpressions {
		selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values,
		})
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || parsed.Empty() || parsed.Matches(labels.Set{}) {
		return nil
	}
	f := &flags{selector: parsed}
	for _, r := range said.Resources {
		f.resources = append(f.resources, schema.GroupResource{Group: r.Group, Resource: r.Resource})
	}
	return f
}

var secrets = schema.GroupResource{Resource: "secrets"}

// flagsOf returns on what condition a request is let through: nil where there is none, because a role of the grant allows it
// or because none does.
func (s *standing) flagsOf(info *apirequest.RequestInfo) *flags {
	kind := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	f := s.flags[info.Namespace]
	if f == nil || !info.IsResourceRequest || info.Verb != "get" || info.Subresource != "" || info.Name == "" || info.Namespace == "" || kind == secrets {
		return nil
	}
	asked := ruleOf(info)
	if s.allows(asked) || !cover(s.roles[v1alpha1.FlaggedRole], asked) || !slices.Contains(f.resources, kind) {
		return nil
	}
	return f
}

// judgeFlagged lets an object be asked for in the one way in which it can be told whether it is flagged: all of it, as it is
// now. What else a client may ask for it would have to be refused for what it is.
func judgeFlagged(r *http.Request) string {
	if r.Method != http.MethodGet || upgrading(r) {
		return "flagged content is read by GET"
	}
	for name := range r.URL.Query() {
		if name != "pretty" && name != "timeout" {
			return "parameter " + strconv.Quote(name) + ": flagged content is read as it is now, and whole"
		}
	}
	return ""
}

// release answers with the object that was asked for, if that very object bears a flag. Whoever asks for another learns nothing
// of it: not what it is, nor how long, nor whether there is one.
func (h *door) release(w *writer, r *http.Request, x *exchange) {
	x.flagged = audit.FlaggedWithheld
	found, err := h.identities.way.fetch(r.Context(), x)
	var refused *refusedError
	if err != nil && !errors.As(err, &refused) {
		failed(w, r, err)
		return
	}
	object, ok := x.flags.judge(x.info, found)
	if err != nil || !ok {
		answer(w, forbidden(x.standing, inWords(ruleOf(x.info))+": there is no object of this name that bears a flag for which the policy releases it"))
		return
	}
	x.flagged = audit.FlaggedReleased
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(object)))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	header.Set("Audit-Id", x.id)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(object)
}

// judge returns an object as it is released, and whether it is. What is released is what was judged, written anew: an answer
// that could be read in two ways is read in one.
func (f *flags) judge(info *apirequest.RequestInfo, found []byte) ([]byte, bool) {
	decoder := json.NewDecoder(bytes.NewReader(found))
	decoder.UseNumber()
	object := map[string]any{}
	if err := decoder.Decode(&object); err != nil || decoder.More() {
		return nil, false
	}
	meta, _ := object["metadata"].(map[string]any)
	if meta["name"] != info.Name || meta["namespace"] != info.Namespace {
		return nil, false
	}
	if object["apiVersion"] != (schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}).String() {
		return nil, false
	}
	borne, set := map[string]any{}, labels.Set{}
	if meta["labels"] != nil {
		borne, _ = meta["labels"].(map[string]any)
	}
	for key, value := range borne {
		set[key], _ = value.(string)
	}
	if !f.selector.Matches(set) {
		return nil, false
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(object)
	return out.Bytes(), err == nil
}

// fetch asks the API server, as the engineer of an exchange, for what the exchange is about: as JSON, whatever the client asked
// for, since a table or an excerpt does not show every label.
func (u *upstream) fetch(ctx context.Context, x *exchange) ([]byte, error) {
	target := *u.base
	target.Path = x.request.URL.Path
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask for an object: %w", err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Audit-Id", x.id)
	actAs(r.Header, x)
	response, err := u.plain.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("ask for an object: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	found, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read an object: %w", err)
	case response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests:
		return nil, fmt.Errorf("ask for an object: the API server answered %d", response.StatusCode)
	case response.StatusCode != http.StatusOK || len(found) > maxBody:
		return nil, &refusedError{status: response.StatusCode}
	}
	return found, nil
}
