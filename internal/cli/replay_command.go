package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/utils/clock"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/cast"
)

// pathRecordings is where the log's API has recordings, by the number of their request.
const pathRecordings = "v1/recordings/"

// replaying is one run of kubectl support-access replay.
type replaying struct {
	reader
	all, raw  bool
	speed     float64
	idleLimit time.Duration
	output    string
	file      string
}

func (d *Desk) replayCommand() *cobra.Command {
	r := &replaying{reader: reader{Desk: d}}
	command := &cobra.Command{
		Use:   "replay ENTRY",
		Short: "Show again what a command in a pod printed, or a log, as the engineer saw it",
		Long: "Show again what went over the stream of an engineer: what a command in a pod printed, and what of a log was kept. ENTRY is the auditID of the request, or the number " +
			"of an entry about it, as kubectl support-access audit -o json shows them. Reading it is an entry itself, and takes the same right as the log.\n\n" +
			"What a pod prints can steer a terminal. To a terminal it is played as it came only with --raw; without, control characters other than line breaks and tabs are " +
			"shown in words. Into a file or a pipe it goes with --raw as it came, to the byte. -o asciicast writes a file that asciinema plays.\n\n" +
			"With --file it is played from a whole export of the log, and nobody is asked. Whether that was changed since, audit verify says.",
		Example: `  # What the engineer saw, twice as fast, without long pauses
  kubectl support-access replay -n mail-archive 6f1f3a0e-3c1a-4b5e-9d60-7b1c5d6f0a11 --speed 2 --idle-limit 2s

  # To the byte
  kubectl support-access replay -n mail-archive 4711 --raw > output.bin

  # For asciinema
  kubectl support-access replay -n mail-archive 4711 -o asciicast > session.cast

  # From an export, which was verified
  kubectl support-access audit verify --key log.pub export.jsonl && kubectl support-access replay 4711 --file export.jsonl`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error { return r.run(command.Context(), args[0]) },
	}
	flags := command.Flags()
	r.bind(flags)
	flags.BoolVarP(&r.all, "all-namespaces", "A", false, "look for it in all namespaces, which takes the right to read the whole log")
	flags.BoolVar(&r.raw, "raw", false, "write the bytes as they came, whatever they do to a terminal; into a file or a pipe at once, standard error to standard error")
	flags.Float64Var(&r.speed, "speed", 1, "play so many times as fast as it was; 0 for at once")
	flags.DurationVar(&r.idleLimit, "idle-limit", 0, "wait no longer than this where nothing happened; 0 for as long as it was")
	flags.StringVarP(&r.output, "output", "o", "", "asciicast for a file that asciinema plays")
	flags.StringVarP(&r.file, "file", "f", "", "an export of the whole log, in place of the gateway")
	return command
}

func (r *replaying) run(ctx context.Context, entry string) error {
	if r.output != "" && r.output != "asciicast" {
		return fmt.Errorf("-o %q is not known: it is asciicast or nothing", r.output)
	}
	if r.speed < 0 || r.idleLimit < 0 {
		return errors.New("--speed and --idle-limit: less than 0 is no speed and no time")
	}
	if r.file != "" {
		return r.fromFile(ctx, entry)
	}
	query, err := r.where()
	if err != nil {
		return err
	}
	log, err := r.open(ctx)
	if err != nil {
		return err
	}
	id, err := r.idOf(ctx, log, entry, query)
	if err != nil {
		return err
	}
	body, err := log.get(ctx, pathRecordings+url.PathEscape(id), query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if r.output == "asciicast" {
		return copied(r.Streams.Out, body)
	}
	return r.play(ctx, body)
}

// fromFile plays a recording from an export.
func (r *replaying) fromFile(ctx context.Context, entry string) error {
	file, err := os.Open(r.file)
	if err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	defer func() { _ = file.Close() }()
	export, err := cast.OpenExport(file, entry)
	if err != nil {
		return fmt.Errorf("--file: %s: %w", r.file, err)
	}
	query := audit.Query{Recording: export.ID}
	if r.output == "asciicast" {
		return played(cast.Play(ctx, export, query, r.Streams.Out), r.file)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, to := io.Pipe()
	go func() { _ = to.CloseWithError(cast.Play(ctx, export, query, to)) }()
	err = played(r.play(ctx, body), r.file)
	_ = body.Close()
	return err
}

// played says of which file it is that there is no such recording.
func played(err error, file string) error {
	if errors.Is(err, cast.ErrNone) {
		return fmt.Errorf("--file: %s: %w", file, err)
	}
	return err
}

// where says in which namespace it is looked for.
func (r *replaying) where() (url.Values, error) {
	if r.all {
		return url.Values{}, nil
	}
	namespace, err := r.namespace()
	if err != nil {
		return nil, err
	}
	return url.Values{"namespace": {namespace}}, nil
}

// idOf returns the number of the request of which an entry is.
func (r *replaying) idOf(ctx context.Context, log *logClient, entry string, query url.Values) (string, error) {
	seq, err := strconv.ParseInt(entry, 10, 64)
	if err != nil {
		return entry, nil //nolint:nilerr // It is no number of an entry, so it is that of a request.
	}
	query = cloneOf(query)
	query.Set("below", strconv.FormatInt(seq+1, 10))
	if seq > 1 {
		query.Set("above", strconv.FormatInt(seq-1, 10))
	}
	found, _, err := (&listing{reader: r.reader}).page(ctx, log, query)
	if err != nil {
		return "", err
	}
	if len(found) == 0 || found[0].AuditID == "" {
		return "", fmt.Errorf("entry %d is not there, or not of this namespace, or it is of no request", seq)
	}
	return string(found[0].AuditID), nil
}

// play shows an asciicast.
func (r *replaying) play(ctx context.Context, body io.Reader) error {
	patient, terminal := !r.raw || isTerminal(r.Streams.Out), isTerminal(r.Streams.Out)
	out, errs := bufio.NewWriter(r.Streams.Out), bufio.NewWriter(r.Streams.ErrOut)
	var at time.Duration
	begin := func(h cast.Header) error {
		if !r.raw || terminal {
			r.say("%s, begun %s", clean(h.Title), time.Unix(h.Timestamp, 0).UTC().Format(time.RFC3339))
		}
		return nil
	}
	err := cast.Read(body, begin, func(e cast.Event) error {
		if patient {
			if err := r.pause(ctx, e.At-at); err != nil {
				return err
			}
		}
		at = e.At
		to := out
		if e.Errors {
			to = errs
		}
		r.show(to, e)
		if patient {
			return errors.Join(out.Flush(), errs.Flush())
		}
		return nil
	})
	return errors.Join(err, out.Flush(), errs.Flush())
}

// show writes one event. Nobody can be told where it cannot be written but by the flush that follows.
func (r *replaying) show(to *bufio.Writer, e cast.Event) {
	switch cast.Kind(e.Code[0]) {
	case cast.Output:
		if r.raw {
			_, _ = to.Write(e.Data)
			return
		}
		_, _ = to.WriteString(harmless(string(e.Data)))
	case 'm':
		r.say("note: %s", clean(string(e.Data)))
	}
}

// pause waits as long as nothing happened.
func (r *replaying) pause(ctx context.Context, quiet time.Duration) error {
	if r.speed == 0 {
		return ctx.Err()
	}
	if r.idleLimit > 0 {
		quiet = min(quiet, r.idleLimit)
	}
	quiet = time.Duration(float64(quiet) / r.speed)
	if quiet <= 0 {
		return ctx.Err()
	}
	timer := clock.RealClock{}.NewTimer(quiet)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C():
		return nil
	}
}

// harmless returns text in which nothing steers a terminal.
func harmless(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return c
		case c == '\r':
			return -1
		case c < 0x20:
			return 0x2400 + c
		case c == 0x7f:
			return 0x2421
		case unicode.IsControl(c) || unicode.Is(unicode.Cf, c):
			return unicode.ReplacementChar
		}
		return c
	}, text)
}

// isTerminal says whether what is written is seen at once.
func isTerminal(to io.Writer) bool {
	file, ok := to.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) //nolint:gosec // Descriptors are small.
}
