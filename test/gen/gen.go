// Package gen builds objects for tests: a sensible object, and small functions that change what a test is about.
package gen

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Epoch is when objects were made unless a test says otherwise: a whole second of a quiet morning.
var Epoch = time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)

// Defaults of the builders.
const (
	Namespace = "mail-archive"
	Admin     = "admin@customer.example"
	Pipeline  = "system:serviceaccount:flux-system:kustomize-controller"
	Engineer  = "ana@vendor.example"
	CaseID    = "CASE-4711"

	Configuration = "support-access-configuration"
	Diagnostics   = "support-access-diagnostics"
	Operate       = "support-access-operate"
	Content       = "support-access-content"
)

// UID is the UID that the builders give an object of this name.
func UID(name string) types.UID { return types.UID("uid-of-" + name) }

// Rule is an RBAC rule for resources of one API group.
func Rule(group string, resources, verbs []string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

// ClusterRole is a role with these rules.
func ClusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func build[T any](object *T, mods []func(*T)) *T {
	for _, mod := range mods {
		mod(object)
	}
	return object
}

func at(t time.Time) *metav1.Time {
	instant := metav1.NewTime(t)
	return &instant
}

func microAt(t time.Time) *metav1.MicroTime {
	instant := metav1.NewMicroTime(t)
	return &instant
}
