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
	eventType   = "dev.supportaccess."
	eventSource = "/supportaccess.dev/grants/"
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
	Event      string    `json:"event"`
	By         string    `json:"by"`
	Message    string    `json:"message,omitempty"`
	Text       string    `json:"text"`
	Grant      grantData `json:"grant"`
	Revocation string    `json:"revokeCommand,omitempty"`
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
	g := n.Grant
	data := grantData{
		Namespace: clean(g.Namespace), Name: clean(g.Name), UID: clean(g.UID), GrantedBy: clean(g.GrantedBy), Reason: clean(g.Reason),
		CaseID: clean(g.CaseID), CaseURL: clean(g.CaseURL), Engineers: cleanList(g.Engineers), Roles: cleanList(g.Roles),
		Namespaces: cleanList(g.Places), Cluster: len(g.Places) == 0, Transport: clean(g.Transport), Elevated: g.Elevated,
		Setting: g.Setting, Ended: g.Over,
	}
	if !g.Until.IsZero() {
		data.ExpirationTime = g.Until.UTC().Format(time.RFC3339)
	}
	return encode(cloudEvent{
		SpecVersion: "1.0", ID: n.ID, Type: eventType + strings.ToLower(string(n.Event)),
		Source: eventSource + clean(g.Namespace), Subject: clean(g.Name),
		Time: n.Time.UTC().Format(time.RFC3339Nano), DataContentType: "application/json",
		Data: eventData{
			Event: string(n.Event), By: clean(n.By), Message: clean(n.Message), Text: n.headline(), Grant: data, Revocation: g.Revoke(),
		},
	})
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
