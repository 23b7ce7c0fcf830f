package audit

import auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

// Section is what an entry is about in an admin's words.
type Section string

// The sections, as the roles that are granted know them.
const (
	SectionSettings  Section = "Settings"
	SectionUsers     Section = "Users and permissions"
	SectionNetwork   Section = "Domains and network"
	SectionWorkloads Section = "Workloads"
	SectionLogs      Section = "Logs"
	SectionSecurity  Section = "Security policy"
	SectionContent   Section = "Content"
)

// Sections are all of them, in the order in which an admin would look.
var Sections = []Section{
	SectionSettings, SectionUsers, SectionNetwork, SectionWorkloads, SectionLogs, SectionSecurity, SectionContent,
}

// IsSection says whether a word is that of a section.
func IsSection(word string) bool {
	for _, s := range Sections {
		if string(s) == word {
			return true
		}
	}
	return false
}

// Kind is one kind of object, or a part of it.
type Kind struct {
	Group, Resource, Subresource string
}

// sections says what belongs where. A group with no resource stands for all that is not named in it.
var sections = map[Kind]Section{
	{"", "configmaps", ""}: SectionSettings,

	{"", "serviceaccounts", ""}:              SectionUsers,
	{"rbac.authorization.k8s.io", "", ""}:    SectionUsers,
	{"authorization.k8s.io", "", ""}:         SectionUsers,
	{"authentication.k8s.io", "", ""}:        SectionUsers,
	{"certificates.k8s.io", "", ""}:          SectionUsers,
	{"", "serviceaccounts", "token"}:         SectionContent,
	{"", "services", ""}:                     SectionNetwork,
	{"", "endpoints", ""}:                    SectionNetwork,
	{"discovery.k8s.io", "", ""}:             SectionNetwork,
	{"networking.k8s.io", "", ""}:            SectionNetwork,
	{"gateway.networking.k8s.io", "", ""}:    SectionNetwork,
	{"cert-manager.io", "", ""}:              SectionNetwork,
	{"acme.cert-manager.io", "", ""}:         SectionNetwork,
	{"", "pods", ""}:                         SectionWorkloads,
	{"", "persistentvolumeclaims", ""}:       SectionWorkloads,
	{"", "replicationcontrollers", ""}:       SectionWorkloads,
	{"", "events", ""}:                       SectionWorkloads,
	{"", "namespaces", ""}:                   SectionWorkloads,
	{"", "nodes", ""}:                        SectionWorkloads,
	{"events.k8s.io", "", ""}:                SectionWorkloads,
	{"apps", "", ""}:                         SectionWorkloads,
	{"batch", "", ""}:                        SectionWorkloads,
	{"autoscaling", "", ""}:                  SectionWorkloads,
	{"metrics.k8s.io", "", ""}:               SectionWorkloads,
	{"", "pods", "log"}:                      SectionLogs,
	{"", "resourcequotas", ""}:               SectionSecurity,
	{"", "limitranges", ""}:                  SectionSecurity,
	{"policy", "", ""}:                       SectionSecurity,
	{"admissionregistration.k8s.io", "", ""}: SectionSecurity,
	{"scheduling.k8s.io", "", ""}:            SectionSecurity,
	{"supportaccess.dev", "", ""}:            SectionSecurity,
	{"", "secrets", ""}:                      SectionContent,
	{"", "pods", "exec"}:                     SectionContent,
	{"", "pods", "attach"}:                   SectionContent,
	{"", "pods", "portforward"}:              SectionContent,
	{"", "pods", "proxy"}:                    SectionContent,
	{"", "services", "proxy"}:                SectionContent,
	{"", "nodes", "proxy"}:                   SectionContent,
	{"", "pods", "ephemeralcontainers"}:      SectionContent,
	{"snapshot.storage.k8s.io", "", ""}:      SectionContent,
}

// SectionOf returns the section of a kind. What nobody knows is a product's own, and its settings.
func SectionOf(kind Kind) Section {
	for _, k := range []Kind{kind, {kind.Group, kind.Resource, ""}, {kind.Group, "", ""}} {
		if s, ok := sections[k]; ok {
			return s
		}
	}
	return SectionSettings
}

// sectionOf returns the section of what a request was about. What is about no kind has none: which kinds there are, the
// server's version.
func sectionOf(object *auditv1.ObjectReference) Section {
	if object == nil {
		return ""
	}
	return SectionOf(Kind{object.APIGroup, object.Resource, object.Subresource})
}
