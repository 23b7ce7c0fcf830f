package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// slackText keeps values from being read as markup: no link, no mention of anybody or of everybody.
var slackText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b", "`", "'", "*", "\u2217", "_", "_\u200b", "~", "\u223c")

// slackBody renders a notice for an incoming webhook of Slack, or of what understands the same.
func (n Notice) slackBody() ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s*\n", slackText.Replace(n.headline()))
	for _, l := range n.lines() {
		value := slackText.Replace(l.Value)
		if l.Value == n.Grant.Revoke() {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "%s: %s\n", l.Label, value)
	}
	return encode(map[string]any{"text": b.String(), "unfurl_links": false, "unfurl_media": false})
}

// Cloud events of this project.
const (
	eventType     = "dev.supportaccess."
	eventSource   = "/supportaccess.dev/grants/"
	requestSource = "/supportaccess.dev/requests/"
)

// cloudEvent is a CloudEvent 1.0 in the structured mode.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            string    `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            eventData `json:"data"`
}

// eventData is what happened, in fields.
type eventData struct {
	Event   string `json:"event"`
	By      string `json:"by"`
	Message string `json:"message,omitempty"`
	Text    string `json:"text"`
	// Either is given.
	Grant   *grantData   `json:"grant,omitempty"`
	Request *requestData `json:"request,omitempty"`
	// What there is to do, where there is.
	Revocation string `json:"revokeCommand,omitempty"`
	Answer     string `json:"grantCommand,omitempty"`
	Denial     string `json:"denyCommand,omitempty"`
}

type requestData struct {
	Namespace   string   `json:"namespace"`
	Name        string   `json:"name"`
	UID         string   `json:"uid"`
	RequestedBy string   `json:"requestedBy"`
	Reason      string   `json:"reason"`
	CaseID      string   `json:"caseID,omitempty"`
	CaseURL     string   `json:"caseURL,omitempty"`
	Engineers   []string `json:"engineers"`
	Roles       []string `json:"roles"`
	// Namespaces is empty where the whole cluster is asked for.
	Namespaces     []string `json:"namespaces,omitempty"`
	Cluster        bool     `json:"cluster,omitempty"`
	Elevated       bool     `json:"elevated,omitempty"`
	Duration       string   `json:"duration"`
	ExpirationTime string   `json:"expirationTime,omitempty"`
	Closed         bool     `json:"closed"`
}

type grantData struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	GrantedBy string   `json:"grantedBy,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	CaseID    string   `json:"caseID,omitempty"`
	CaseURL   string   `json:"caseURL,omitempty"`
	Engineers []string `json:"engineers"`
	Roles     []string `json:"roles"`
	// Namespaces is empty where the grant reaches the whole cluster.
	Namespaces     []string `json:"namespaces,omitempty"`
	Cluster        bool     `json:"cluster,omitempty"`
	Transport      string   `json:"transport,omitempty"`
	Elevated       bool     `json:"elevated,omitempty"`
	Setting        bool     `json:"setting,omitempty"`
	ExpirationTime string   `json:"expirationTime,omitempty"`
	Ended          bool     `json:"ended"`
}

// eventBody renders a notice as a CloudEvent.
func (n Notice) eventBody() ([]byte, error) {
	g, source := n.Grant, eventSource
	data := eventData{
		Event: string(n.Event), By: clean(n.By), Message: clean(n.Message), Text: n.headline(),
		Revocation: g.Revoke(), Answer: g.Answer(), Denial: g.Deny(),
	}
	if g.Request {
		data.Request, source = g.requestData(), requestSource
	} else {
		data.Grant = g.grantData()
	}
	return encode(cloudEvent{
		SpecVersion: "1.0", ID: n.ID, Type: eventType + strings.ToLower(string(n.Event)),
		Source: source + clean(g.Namespace), Subject: clean(g.Name),
		Time: n.Time.UTC().Format(time.RFC3339Nano), DataContentType: "application/json", Data: data,
	})
}

func (g Grant) grantData() *grantData {
	return &grantData{
		Namespace: clean(g.Namespace), Name: clean(g.Name), UID: clean(g.UID), GrantedBy: clean(g.GrantedBy), Reason: clean(g.Reason),
		CaseID: clean(g.CaseID), CaseURL: clean(g.CaseURL), Engineers: cleanList(g.Engineers), Roles: cleanList(g.Roles),
		Namespaces: cleanList(g.Places), Cluster: len(g.Places) == 0, Transport: clean(g.Transport), Elevated: g.Elevated,
		Setting: g.Setting, Ended: g.Over, ExpirationTime: g.until(),
	}
}

func (g Grant) requestData() *requestData {
	return &requestData{
		Namespace: clean(g.Namespace), Name: clean(g.Name), UID: clean(g.UID), RequestedBy: clean(g.RequestedBy), Reason: clean(g.Reason),
		CaseID: clean(g.CaseID), CaseURL: clean(g.CaseURL), Engineers: cleanList(g.Engineers), Roles: cleanList(g.Roles),
		Namespaces: cleanList(g.Places), Cluster: len(g.Places) == 0, Elevated: g.Elevated, Duration: clean(g.Duration),
		ExpirationTime: g.until(), Closed: g.Over,
	}
}

// until is when a grant ends, or when a request expires, empty if that is not settled.
func (g Grant) until() string {
	if g.Until.IsZero() {
		return ""
	}
	return g.Until.UTC().Format(time.RFC3339)
}

// cleanList cleans what the API bounds to 64 entries anyway.
func cleanList(values []string) []string {
	out := make([]string, 0, min(len(values), 64))
	for _, value := range values[:min(len(values), 64)] {
		out = append(out, cleanTo(value, 253))
	}
	return out
}

func encode(body any) ([]byte, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode a notice: %w", err)
	}
	return encoded, nil
}
