package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refusal is why a request is not let through: a status code and a sentence for the client.
type refusal struct {
	code    int
	reason  string
	message string
}

func badRequest(message string) *refusal {
	return &refusal{code: http.StatusBadRequest, reason: "BadRequest", message: message}
}

// connectionWords are what a Connection header may say. Any other word would have a proxy drop the header of that name.
var connectionWords = []string{"upgrade", "keep-alive", "close", "te"}

// upgrades are the protocols of streams into pods and of watches over WebSocket.
var upgrades = []string{"websocket", "spdy/3.1"}

// bearerProtocol begins a WebSocket subprotocol in which browsers send a credential.
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

// clean refuses a request that says more than an engineer may say, or that another server could read differently. It
// repairs nothing: what is repaired is read in two ways.
func clean(r *http.Request) *refusal {
	for _, check := range []func(*http.Request) *refusal{cleanMethod, cleanPath, cleanHeaders, cleanConnection, cleanUpgrade} {
		if refused := check(r); refused != nil {
			return refused
		}
	}
	return nil
}

func cleanMethod(r *http.Request) *refusal {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return nil
	default:
		return badRequest("the method " + r.Method + " is not let through")
	}
}

// cleanPath refuses what one server may decode, clean or split differently from another: the API server decides by the
// decoded path, and so must everything here.
func cleanPath(r *http.Request) *refusal {
	path := r.URL.Path
	if !strings.HasPrefix(path, "/") || r.URL.Host != "" || r.URL.Opaque != "" || r.URL.Fragment != "" {
		return badRequest("the request target is not a path")
	}
	if !utf8.ValidString(path) || strings.ContainsFunc(path, isControl) {
		return badRequest("the path has bytes that are no text")
	}
	if strings.Contains(path, "//") || strings.ContainsAny(path, "\\;%?#") {
		return badRequest("the path has an empty segment or one of the characters \\ ; % ? #")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return badRequest("the path has a segment . or ..")
		}
	}
	if escaped := strings.ToLower(r.URL.EscapedPath()); strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") {
		return badRequest("the path has an escaped slash")
	}
	return cleanQuery(r)
}

// cleanQuery refuses what a proxy would drop and others might not, and a list or watch whose parameters are not what they
// should be: whether such a one is a watch, servers decide differently.
func cleanQuery(r *http.Request) *refusal {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("the query cannot be read")
	}
	if len(query) == 0 || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil
	}
	if err := metainternalversionscheme.ParameterCodec.DecodeParameters(query, metav1.SchemeGroupVersion, &metainternalversion.ListOptions{}); err != nil {
		return badRequest("a parameter of the query is not what it should be")
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// cleanHeaders refuses headers by which a client would choose who it is, or pass for a proxy that vouches for it.
func cleanHeaders(r *http.Request) *refusal {
	for name, values := range r.Header {
		lower := strings.ToLower(name)
		switch {
		case strings.HasPrefix(lower, "impersonate-"):
			return badRequest("header " + name + ": the gateway alone says who acts")
		case strings.HasPrefix(lower, "x-remote-"):
			return badRequest("header " + name + ": the gateway takes nobody's word for who asks")
		case strings.ContainsAny(name, "_ \t"):
			return badRequest("header " + name + ": a name that servers read in two ways")
		case lower == "authorization" && len(values) != 1:
			return badRequest("header Authorization: give it once")
		}
	}
	return nil
}

func cleanConnection(r *http.Request) *refusal {
	for _, word := range wordsOf(r.Header.Values("Connection")) {
		if !slices.Contains(connectionWords, word) {
			return badRequest("header Connection: " + word + " is not let through")
		}
	}
	if len(r.TransferEncoding) > 0 && r.ContentLength > 0 {
		return badRequest("the length of the body is given twice")
	}
	if len(r.Trailer) > 0 {
		return badRequest("trailers are not let through")
	}
	return nil
}

func cleanUpgrade(r *http.Request) *refusal {
	asks := slices.Contains(wordsOf(r.Header.Values("Connection")), "upgrade")
	protocols := wordsOf(r.Header.Values("Upgrade"))
	if !asks && len(protocols) == 0 {
		return nil
	}
	if r.ProtoMajor != 1 {
		return badRequest("an upgrade needs HTTP/1.1")
	}
	if !asks || len(protocols) != 1 || !slices.Contains(upgrades, protocols[0]) {
		return badRequest("header Upgrade: only WebSocket and SPDY/3.1 are let through, and Connection must say so")
	}
	for _, protocol := range wordsOf(r.Header.Values("Sec-Websocket-Protocol")) {
		if strings.HasPrefix(protocol, bearerProtocol) {
			return badRequest("header Sec-WebSocket-Protocol: give the credential in the header Authorization")
		}
	}
	return nil
}

// wordsOf splits the values of a header at their commas, in lower case.
func wordsOf(values []string) []string {
	var words []string
	for _, value := range values {
		for word := range strings.SplitSeq(value, ",") {
			if word = strings.ToLower(strings.TrimSpace(word)); word != "" {
				words = append(words, word)
			}
		}
	}
	return words
}

// upgrading reports whether a clean request asks for another protocol.
func upgrading(r *http.Request) bool { return len(r.Header.Values("Upgrade")) > 0 }

// ownHeaders are headers of the client's that say something to the gateway alone, or that would be taken for the
// gateway's own word by what comes after it.
var ownHeaders = []string{
	"Authorization", "Proxy-Authorization", "Proxy-Authenticate", "Cookie", "Audit-Id", "Forwarded", "X-Real-Ip",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Uri", "X-Original-Uri",
	"X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
}
