// Package ocsf renders the audit log in the words of the Open Cybersecurity Schema Framework, for systems that read nothing else:
// each entry is an API Activity (class 6003) of schema 1.8.0. It proves nothing; what has no word there is in unmapped.
package ocsf

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"supportaccess.dev/operator/internal/audit"
)

// Version is that of the schema.
const Version = "1.8.0"

// Class, category and the activities of API Activity, and what an event of no particular severity is.
const (
	class         = 6003
	category      = 6
	create        = 1
	read          = 2
	update        = 3
	remove        = 4
	other         = 99
	informational = 1
)

// The words for what became of something.
const (
	unknown = 0
	success = 1
	failure = 2
)

var activityNames = map[int]string{create: "Create", read: "Read", update: "Update", remove: "Delete", other: "Other"}

// activities are those of Kubernetes' verbs. A stream into a pod is none of them.
var activities = map[string]int{
	"create": create, "get": read, "list": read, "watch": read, "update": update, "patch": update, "apply": update,
	"delete": remove, "deletecollection": remove,
}

type event struct {
	ClassUID     int          `json:"class_uid"`
	ClassName    string       `json:"class_name"`
	CategoryUID  int          `json:"category_uid"`
	CategoryName string       `json:"category_name"`
	ActivityID   int          `json:"activity_id"`
	ActivityName string       `json:"activity_name"`
	TypeUID      int          `json:"type_uid"`
	SeverityID   int          `json:"severity_id"`
	Severity     string       `json:"severity"`
	Time         int64        `json:"time"`
	Duration     int64        `json:"duration,omitempty"`
	StatusID     int          `json:"status_id"`
	Status       string       `json:"status"`
	StatusCode   string       `json:"status_code,omitempty"`
	Message      string       `json:"message,omitempty"`
	Metadata     metadata     `json:"metadata"`
	Actor        actor        `json:"actor"`
	API          api          `json:"api"`
	Source       endpoint     `json:"src_endpoint"`
	HTTP         *httpRequest `json:"http_request,omitempty"`
	Resources    []resource   `json:"resources,omitempty"`
	Unmapped     unmapped     `json:"unmapped"`
}

type metadata struct {
	Version      string   `json:"version"`
	OriginalUID  string   `json:"original_event_uid"`
	OriginalTime string   `json:"original_time,omitempty"`
	Sequence     int64    `json:"sequence"`
	EventCode    string   `json:"event_code"`
	LogName      string   `json:"log_name,omitempty"`
	Labels       []string `json:"labels"`
	Product      product  `json:"product"`
}

type product struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
}

type actor struct {
	User user `json:"user"`
}

type user struct {
	Name   string  `json:"name"`
	UID    string  `json:"uid,omitempty"`
	Groups []group `json:"groups,omitempty"`
}

type group struct {
	Name string `json:"name"`
}

type api struct {
	Operation string    `json:"operation"`
	Version   string    `json:"version,omitempty"`
	Service   group     `json:"service"`
	Group     *group    `json:"group,omitempty"`
	Request   *apiUID   `json:"request,omitempty"`
	Response  *response `json:"response,omitempty"`
}

type apiUID struct {
	UID string `json:"uid"`
}

type response struct {
	Code int32 `json:"code"`
}

type endpoint struct {
	IP          string `json:"ip,omitempty"`
	ServiceName string `json:"svc_name,omitempty"`
}

type httpRequest struct {
	UserAgent string `json:"user_agent,omitempty"`
	URL       *url   `json:"url,omitempty"`
}

type url struct {
	Path string `json:"path"`
}

type resource struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Type      string `json:"type"`
	UID       string `json:"uid,omitempty"`
}

// unmapped is what the schema has no word for.
type unmapped struct {
	Grant   *audit.Grant `json:"grant,omitempty"`
	Case    string       `json:"case,omitempty"`
	Section string       `json:"section,omitempty"`
	Outcome string       `json:"outcome,omitempty"`
	Stage   string       `json:"stage,omitempty"`
	Cause   string       `json:"cause,omitempty"`
	Command []string     `json:"command,omitempty"`
	Change  any          `json:"change,omitempty"`
}

// Export writes the entries that a query asks for, a line each, the newest first.
func Export(ctx context.Context, w io.Writer, s audit.Reader, q audit.Query) error {
	standing, err := s.Load(ctx)
	if err != nil || standing == nil {
		return err
	}
	// A checkpoint begins with the name of its log.
	origin, _, _ := strings.Cut(standing.Checkpoint, "\n")
	return audit.EachEntry(ctx, s, q, func(e *audit.Entry) error {
		encoded, err := Encode(e, origin)
		if err != nil {
			return fmt.Errorf("encode entry %d: %w", e.Seq, err)
		}
		if _, err := w.Write(append(encoded, '\n')); err != nil {
			return fmt.Errorf("write entry %d: %w", e.Seq, err)
		}
		return nil
	})
}

// Encode renders one entry of the log with a name.
func Encode(e *audit.Entry, origin string) ([]byte, error) {
	facets := audit.FacetsOf(e)
	activity := activityOf(e)
	status, statusName := statusOf(facets.Outcome)
	out := event{
		ClassUID: class, ClassName: "API Activity", CategoryUID: category, CategoryName: "Application Activity",
		ActivityID: activity, ActivityName: activityNames[activity], TypeUID: class*100 + activity,
		SeverityID: informational, Severity: "Informational",
		Time: facets.Time.UnixMilli(), Duration: int64(e.DurationMillis), StatusID: status, Status: statusName,
		Metadata: metadata{
			Version: Version, OriginalUID: origin + "/" + strconv.FormatInt(e.Seq, 10), OriginalTime: facets.Time.UTC().Format(time.RFC3339Nano),
			Sequence: e.Seq, EventCode: e.Type.Name(), LogName: origin, Labels: []string{audit.LabelSource + ": " + facets.Source},
			Product: product{Name: "Support Access", VendorName: "supportaccess.dev"},
		},
		Actor:  actor{User: userOf(e)},
		Source: endpoint{ServiceName: "support-access"},
		API:    apiOf(e),
		Unmapped: unmapped{
			Case: e.Case, Section: string(e.Section), Outcome: string(facets.Outcome), Stage: string(e.Stage), Cause: e.Cause, Command: e.Command,
		},
	}
	if len(e.SourceIPs) > 0 {
		out.Source = endpoint{IP: e.SourceIPs[0]}
	}
	if e.ResponseStatus != nil {
		out.StatusCode, out.API.Response = strconv.Itoa(int(e.ResponseStatus.Code)), &response{Code: e.ResponseStatus.Code}
		out.Message = e.ResponseStatus.Message
	}
	if e.Happened != nil {
		out.Message = e.Happened.Message
	}
	if e.RequestURI != "" {
		out.HTTP = &httpRequest{UserAgent: e.UserAgent, URL: &url{Path: e.RequestURI}}
	}
	if e.ObjectRef != nil {
		out.Resources = []resource{{Name: e.ObjectRef.Name, Namespace: e.ObjectRef.Namespace, Type: facets.Resource, UID: string(e.ObjectRef.UID)}}
	}
	if e.Grant != (audit.Grant{}) {
		out.Unmapped.Grant = &e.Grant
	}
	if e.Change != nil {
		out.Unmapped.Change = e.Change
	}
	return json.Marshal(out)
}

func activityOf(e *audit.Entry) int {
	if e.Happened != nil || e.ObjectRef != nil && (e.ObjectRef.Subresource == "exec" || e.ObjectRef.Subresource == "attach") {
		return other
	}
	if activity, known := activities[strings.ToLower(e.Verb)]; known {
		return activity
	}
	return other
}

func statusOf(outcome audit.Outcome) (id int, name string) {
	switch outcome {
	case audit.OutcomeSucceeded, audit.OutcomeCut:
		return success, "Success"
	case audit.OutcomeRefused, audit.OutcomeFailed:
		return failure, "Failure"
	default:
		return unknown, "Unknown"
	}
}

// userOf is who did it: the person where that is known, and as whom the cluster saw them.
func userOf(e *audit.Entry) user {
	u := user{Name: e.Engineer, UID: e.User.Username}
	if u.Name == "" {
		u = user{Name: e.User.Username}
	}
	if u.Name == "" {
		u.Name = "support-access"
	}
	for _, name := range e.User.Groups {
		u.Groups = append(u.Groups, group{Name: name})
	}
	return u
}

func apiOf(e *audit.Entry) api {
	a := api{Operation: e.Verb, Service: group{Name: "kubernetes"}}
	if e.Happened != nil {
		a.Operation, a.Service.Name = e.Happened.What, "support-access"
	}
	if a.Operation == "" {
		a.Operation = e.Type.Name()
	}
	if e.ObjectRef != nil {
		a.Version = e.ObjectRef.APIVersion
		if e.ObjectRef.APIGroup != "" {
			a.Group = &group{Name: e.ObjectRef.APIGroup}
		}
	}
	if e.AuditID != "" {
		a.Request = &apiUID{UID: string(e.AuditID)}
	}
	return a
}
