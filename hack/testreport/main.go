// Command testreport runs go test with the arguments given and prints the packages as they end, what failed with its
// output, and the tests that took longest.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

const (
	slowest = 15
	// saidAtTheEnd is how many lines of what a failed test said are said again at the end.
	saidAtTheEnd = 20
)

// said is a line that a test itself wrote, and not what it started.
var said = regexp.MustCompile(`^\s*(\w+\.go:\d+: |panic: )`)

// event is one line of go test -json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

// report gathers what the events tell.
type report struct {
	out    io.Writer
	output map[string][]string
	slow   []event
	failed int
	passed int
	skip   []string
	// again is what failed tests said, for the end: what they started may have said much more.
	again []string
}

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		fail(err)
	}
	if err := cmd.Start(); err != nil {
		fail(err)
	}
	r := &report{out: os.Stdout, output: map[string][]string{}}
	r.read(stdout)
	err = cmd.Wait()
	r.summary()
	if err != nil {
		fail(fmt.Errorf("go test: %w", err))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func (r *report) read(events io.Reader) {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if json.Unmarshal([]byte(line), &e) == nil {
			r.add(e)
		} else if line != "" {
			_, _ = fmt.Fprint(r.out, line)
		}
		if err != nil {
			return
		}
	}
}

func (r *report) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case "pass", "fail", "skip", "build-fail":
	default:
		return
	}
	if e.Action == "fail" || e.Action == "build-fail" {
		_, _ = fmt.Fprintf(r.out, "--- FAIL %s\n%s", key, strings.Join(r.output[key], ""))
		r.saysAgain(key)
	}
	delete(r.output, key)
	if e.Test == "" {
		r.endPackage(e)
		return
	}
	r.endTest(e, key)
}

func (r *report) saysAgain(key string) {
	own := slices.DeleteFunc(slices.Clone(r.output[key]), func(line string) bool { return !said.MatchString(line) })
	if len(own) > 0 {
		r.again = append(append(r.again, "failed: "+key+"\n"), own[:min(saidAtTheEnd, len(own))]...)
	}
}

func (r *report) endPackage(e event) {
	if e.Action == "pass" || e.Action == "fail" {
		_, _ = fmt.Fprintf(r.out, "%-5s %7.1f s  %s\n", e.Action, e.Elapsed, e.Package)
	}
}

func (r *report) endTest(e event, key string) {
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
	case "skip":
		r.skip = append(r.skip, key)
	}
	r.slow = append(r.slow, e)
}

func (r *report) summary() {
	slices.SortFunc(r.slow, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	_, _ = fmt.Fprintln(r.out, "\nWhat took longest:")
	for _, e := range r.slow[:min(slowest, len(r.slow))] {
		_, _ = fmt.Fprintf(r.out, "%7.1f s  %s %s\n", e.Elapsed, e.Package, e.Test)
	}
	for _, key := range r.skip {
		_, _ = fmt.Fprintln(r.out, "skipped:", key)
	}
	for _, line := range r.again {
		_, _ = fmt.Fprint(r.out, line)
	}
	_, _ = fmt.Fprintf(r.out, "%d tests passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skip))
}
