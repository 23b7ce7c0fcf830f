package crash

import (
	"slices"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

// handoverFlows are what is different when a credential of the gateway's is handed over again.
func handoverFlows() []flow {
	replaces := func(r *run) { r.decide("again", gen.HandingOver(theGrant, ana)) }
	uses := func(r *run) { r.comesIn(theGrant, ana, "gateway-a") }
	return []flow{
		{name: "through the gateway, handed over again before anybody came in", before: opened(throughGateway, both), acts: []func(*run){replaces}, short: true},
		{name: "through the gateway, handed over again with a key", before: opened(throughGateway, gen.WithPublicKey(ana, keyring.Recipient().String())),
			acts: []func(*run){replaces}},
		{name: "through the gateway, used, handed over again and used", before: func(r *run) {
			opened(throughGateway, both)(r)
			uses(r)
			r.newLife(nil, nil).settle()
		}, acts: []func(*run){replaces, uses}},
		{name: "through the gateway, handed over again twice", before: opened(throughGateway), acts: []func(*run){replaces, func(r *run) {
			r.awaitSecond()
			r.decide("and-again", gen.HandingOver(theGrant, ana))
		}}},
		{name: "through the gateway, handed over again and deleted", before: opened(throughGateway), acts: []func(*run){func(r *run) {
			replaces(r)
			r.delete(theGrant)
		}}},
	}
}

// replaced returns the hash of the credential that was replaced last, empty if none was.
func replaced(record *v1alpha1.SupportAccessRecord, engineer string) string {
	at := slices.IndexFunc(record.Status.ReplacedCredentials, func(c v1alpha1.ReplacedCredential) bool { return c.Name == engineer })
	if at < 0 {
		return ""
	}
	return record.Status.ReplacedCredentials[at].Hash
}
