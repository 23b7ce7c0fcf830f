package chain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Witness is what is kept of logs where those who write them cannot reach it: of each the newest checkpoint. It takes a
// newer one only with the proof that the log has but grown.
type Witness struct {
	logs []*Kept
}

// Kept is the newest checkpoint of one log.
type Kept struct {
	// ID is the hash of the log's first key, as notes have it.
	ID string
	// Keys are the public keys of those who have signed the checkpoint.
	Keys []string
	// Checkpoint is signed.
	Checkpoint string
	// Time is when the log said so.
	Time time.Time

	seal Seal
}

// Size is how many entries the log had.
func (k *Kept) Size() int64 { return k.seal.Tree.N }

// Origin is the log's name.
func (k *Kept) Origin() string { return k.seal.Origin }

// Offer is a checkpoint that a log's writer hands over.
type Offer struct {
	// Checkpoint is signed, Keys are the public keys of those who did.
	Checkpoint string
	Keys       []string
	// Since is the size from which Proof leads to the checkpoint; 0 if there is no proof.
	Since int64
	Proof []tlog.Hash
	// Time is when the writer read its log.
	Time time.Time
}

// Why an offer is refused, in one word.
const (
	// RefusedMalformed is that it is no checkpoint.
	RefusedMalformed = "Malformed"
	// RefusedUnsigned is that no key has signed it that was given.
	RefusedUnsigned = "Unsigned"
	// RefusedRolledBack is that it has fewer entries than the log had before.
	RefusedRolledBack = "RolledBack"
	// RefusedForked is that it is of another log with the same key.
	RefusedForked = "Forked"
	// RefusedUnproven is that nothing proves that the log has but grown.
	RefusedUnproven = "Unproven"
	// RefusedFull is that too many logs are kept already.
	RefusedFull = "Full"
)

// Refusal is why a checkpoint is not taken.
type Refusal struct {
	// Reason is one word of those above.
	Reason string
	// Message says it in a sentence.
	Message string
}

// Error returns the reason and the message.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Message }

// Taking is what became of an offer.
type Taking int

const (
	// TookNothing is that there was nothing new in it.
	TookNothing Taking = iota
	// TookNewer is that the log has grown.
	TookNewer
	// TookAnother is that it is of a log that was not known.
	TookAnother
)

const (
	// maxKept is how many logs are kept.
	maxKept = 64
	// forgottenAfter is for how long a log that does not grow is kept in any case, where others want its place.
	forgottenAfter = 30 * 24 * time.Hour
	// overtaken is by how much an offer of fewer entries must be later than what is kept before it counts: what a second
	// writer read before is not an older copy.
	overtaken = 30 * time.Second
)

// The parts of what is kept of a log: each has a name that begins with the log's ID.
const (
	partCheckpoint = ".checkpoint"
	partKeys       = ".keys"
	partTime       = ".time"
)

// ReadWitness reads what Data has written.
func ReadWitness(data map[string]string) (*Witness, error) {
	w := &Witness{}
	for name, checkpoint := range data {
		id, ok := strings.CutSuffix(name, partCheckpoint)
		if !ok {
			continue
		}
		kept := &Kept{ID: id, Checkpoint: checkpoint, Keys: strings.Fields(data[id+partKeys])}
		var err error
		if kept.seal, _, err = openSigned(checkpoint, kept.Keys); err != nil {
			return nil, fmt.Errorf("read what is kept of log %s: %w", id, err)
		}
		if kept.Time, err = time.Parse(time.RFC3339Nano, strings.TrimSpace(data[id+partTime])); err != nil {
			return nil, fmt.Errorf("read what is kept of log %s: %w", id, err)
		}
		w.logs = append(w.logs, kept)
	}
	slices.SortFunc(w.logs, func(a, b *Kept) int { return strings.Compare(a.ID, b.ID) })
	return w, nil
}

// Data returns what is kept, as a ConfigMap has it.
func (w *Witness) Data() map[string]string {
	data := map[string]string{}
	for _, k := range w.logs {
		data[k.ID+partCheckpoint] = k.Checkpoint
		data[k.ID+partKeys] = strings.Join(k.Keys, "\n") + "\n"
		data[k.ID+partTime] = k.Time.UTC().Format(time.RFC3339Nano) + "\n"
	}
	return data
}

// Logs are those of which something is kept.
func (w *Witness) Logs() []*Kept { return slices.Clone(w.logs) }

// Of returns what is kept of the log that has signed a checkpoint with a key that is known of it, nil if nothing is.
func (w *Witness) Of(checkpoint string) *Kept {
	for _, k := range w.logs {
		if seal, _, err := openSigned(checkpoint, k.Keys); err == nil && len(seal.Known) > 0 {
			return k
		}
	}
	return nil
}

// Take keeps a checkpoint, if it is signed and the log has but grown since the one that is kept. Otherwise the error is a
// Refusal.
func (w *Witness) Take(o Offer) (Taking, error) {
	seal, signers, err := openSigned(o.Checkpoint, o.Keys)
	if err != nil {
		return TookNothing, &Refusal{RefusedMalformed, err.Error()}
	}
	if len(signers) == 0 {
		return TookNothing, &Refusal{RefusedUnsigned, fmt.Sprintf("the checkpoint of %d entries is signed by none of the keys that came with it", seal.Tree.N)}
	}
	taken := &Kept{Keys: signers, Checkpoint: o.Checkpoint, Time: o.Time, seal: seal}
	kept := w.Of(o.Checkpoint)
	if kept == nil {
		return w.begin(taken)
	}
	if fault := kept.follow(taken, o); fault != nil {
		return TookNothing, fault
	}
	if taken.seal.Tree.N <= kept.seal.Tree.N {
		return TookNothing, nil
	}
	taken.ID = kept.ID
	*kept = *taken
	return TookNewer, nil
}

// begin keeps the first checkpoint of a log. Where there is no room, the log gives place that has not grown for longest.
func (w *Witness) begin(first *Kept) (Taking, error) {
	first.ID = idOf(first.Keys[0])
	if slices.ContainsFunc(w.logs, func(k *Kept) bool { return k.ID == first.ID }) {
		return TookNothing, &Refusal{RefusedUnsigned, fmt.Sprintf("the checkpoint of %d entries is signed by a key that its log has given up, or by another of the same hash, %s", first.Size(), first.ID)}
	}
	if len(w.logs) >= maxKept {
		oldest := slices.MinFunc(w.logs, func(a, b *Kept) int { return a.Time.Compare(b.Time) })
		if first.Time.Sub(oldest.Time) < forgottenAfter {
			return TookNothing, &Refusal{RefusedFull, fmt.Sprintf("%d logs are kept already, and each has grown within %s", maxKept, forgottenAfter)}
		}
		w.logs = slices.DeleteFunc(w.logs, func(k *Kept) bool { return k == oldest })
	}
	w.logs = append(w.logs, first)
	return TookAnother, nil
}

// follow says why a checkpoint does not follow the one that is kept, nil if it does, or is the same, or was just overtaken.
func (k *Kept) follow(next *Kept, o Offer) error {
	before, after := k.seal.Tree, next.seal.Tree
	switch {
	case next.seal.Origin != k.seal.Origin:
		return &Refusal{RefusedForked, fmt.Sprintf("the checkpoint is of the log %q, the one that is kept of %q", next.seal.Origin, k.seal.Origin)}
	case after.N < before.N && o.Time.Sub(k.Time) < overtaken:
		return nil
	case after.N < before.N:
		return &Refusal{RefusedRolledBack, fmt.Sprintf("the log has %d entries, and had %d: it is an older copy, or its end was taken off", after.N, before.N)}
	case after.N == before.N && after.Hash == before.Hash:
		return nil
	case after.N == before.N:
		return &Refusal{RefusedForked, fmt.Sprintf("the log has other entries among its %d than the one that is kept", after.N)}
	case o.Since != before.N:
		return &Refusal{RefusedUnproven, fmt.Sprintf("nothing proves that the %d entries begin with the %d that are known", after.N, before.N)}
	}
	if err := tlog.CheckTree(o.Proof, after.N, after.Hash, before.N, before.Hash); err != nil {
		return &Refusal{RefusedForked, fmt.Sprintf("the %d entries do not begin with the %d that are known: the log went back, and somebody went on from there", after.N, before.N)}
	}
	return nil
}

// openSigned opens a checkpoint. It returns which of the keys have signed it.
func openSigned(checkpoint string, keys []string) (Seal, []string, error) {
	known, err := Verifiers(keys)
	if err != nil {
		return Seal{}, nil, err
	}
	seal, err := Open(checkpoint, known)
	if err != nil {
		return Seal{}, nil, err
	}
	var signers []string
	for _, key := range keys {
		// The name of a key is that of its log.
		if name, _, _ := strings.Cut(key, "+"); name == seal.Origin && slices.Contains(seal.Known, name+"+"+idOf(key)) {
			signers = append(signers, key)
		}
	}
	return seal, slices.Compact(signers), nil
}

// idOf returns the hash of a public key as notes have it: what stands between its name and the key itself.
func idOf(key string) string {
	_, rest, _ := strings.Cut(key, "+")
	id, _, _ := strings.Cut(rest, "+")
	return id
}
