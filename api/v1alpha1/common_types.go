package v1alpha1

import (
	"fmt"
	"time"
)

// Duration is a length of time as people write it: hours, minutes and seconds, in this order, such as 24h, 90m or
// 1h30m. Days and weeks are not units: write 72h for three days. It is a string, not a metav1.Duration, because the
// API server's own duration format accepts words that Go does not decode, and one such object breaks every list.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=16
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$')",message="write hours, minutes and seconds, in this order, such as 24h, 90m or 1h30m; days and weeks are not units: for 3 days write 72h"
type Duration string

// Parse returns the duration as Go counts it. An empty Duration is zero. It fails only on words that the API server
// would not have accepted.
func (d Duration) Parse() (time.Duration, error) {
	if d == "" {
		return 0, nil
	}
	parsed, err := time.ParseDuration(string(d))
	if err != nil {
		return 0, fmt.Errorf("parse duration %q: write hours, minutes and seconds, such as 72h: %w", string(d), err)
	}
	return parsed, nil
}

// OrZero returns the duration, and zero where it cannot be parsed: the shortest answer, so never more access.
func (d Duration) OrZero() time.Duration {
	parsed, err := d.Parse()
	if err != nil {
		return 0
	}
	return parsed
}

// Transport is the way by which an engineer reaches the cluster.
//
// +kubebuilder:validation:Enum=Gateway;Direct
type Transport string

const (
	// TransportGateway sends every request through the gateway, which records it and cuts streams when a grant ends.
	TransportGateway Transport = "Gateway"
	// TransportDirect sends requests straight to the API server with a ServiceAccount's token. New requests stop the
	// moment a grant ends; streams that are open then do not.
	TransportDirect Transport = "Direct"
)

// Case names the support case because of which a grant is given.
type Case struct {
	// id is the case's number in the vendor's tracker, printable ASCII without spaces, at most 64 characters. A policy may
	// require it and give its pattern.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[!-~]+$`
	ID string `json:"id"`

	// url is where the case can be read. https only. Empty means no link. It may be corrected later.
	//
	// +optional
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^https://[!-~]+$`
	URL string `json:"url,omitempty"`
}
