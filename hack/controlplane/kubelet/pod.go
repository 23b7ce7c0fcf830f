package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// readyTimeout bounds the wait for a pod on a busy machine.
	readyTimeout = 90 * time.Second
	stopGrace    = 30 * time.Second
	probeEvery   = 50 * time.Millisecond
)

// LogPath is the file with what the program prints.
func (p *Pod) LogPath() string { return filepath.Join(p.Dir, "log") }

// PID is the number of the program's process.
func (p *Pod) PID() int { return p.process.PID() }

// Path is the program that it runs.
func (p *Pod) Path() string { return p.process.Path() }

// Exited tells whether the program has ended.
func (p *Pod) Exited() bool { return p.process.Exited() }

// Done is closed when the program has ended.
func (p *Pod) Done() <-chan struct{} { return p.process.Done() }

// ExitCode is what an ended program returned, -1 when a signal ended it.
func (p *Pod) ExitCode() int { return p.process.ExitCode() }

// Stop asks the program to end, and ends it if it does not.
func (p *Pod) Stop() error {
	// A program that is stopped in its tracks takes no request to end.
	_ = p.process.Resume()
	return p.process.Stop(stopGrace)
}

// Kill ends the program without asking.
func (p *Pod) Kill() error { return p.process.Kill() }

// Pause stops the program in its tracks, until Resume.
func (p *Pod) Pause() error { return p.process.Pause() }

// Resume lets a paused program go on.
func (p *Pod) Resume() error { return p.process.Resume() }

// HealthURL is what the kubelet asks to know that the program lives; empty when the manifest has no such probe.
func (p *Pod) HealthURL() string { return p.probeURL(p.container.LivenessProbe) }

// ReadyURL is what the kubelet asks to know that the program is ready; empty when the manifest has no such probe.
func (p *Pod) ReadyURL() string { return p.probeURL(p.container.ReadinessProbe) }

// URL is a path at one of the container's ports, by the port's name, over plain HTTP.
func (p *Pod) URL(port, path string) (string, error) {
	number, err := p.port(intstr.FromString(port))
	if err != nil {
		return "", err
	}
	return p.url("http", number, path), nil
}

func (p *Pod) url(scheme string, port int, path string) string {
	return scheme + "://" + net.JoinHostPort(p.IP, strconv.Itoa(port)) + "/" + strings.TrimPrefix(path, "/")
}

func (p *Pod) port(port intstr.IntOrString) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, candidate := range p.container.Ports {
		if candidate.Name == port.StrVal {
			return int(candidate.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("the container %q has no port %q", p.container.Name, port.StrVal)
}

func (p *Pod) probeURL(probe *corev1.Probe) string {
	if probe == nil || probe.HTTPGet == nil {
		return ""
	}
	port, err := p.port(probe.HTTPGet.Port)
	if err != nil {
		return ""
	}
	scheme := "http"
	if probe.HTTPGet.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	return p.url(scheme, port, probe.HTTPGet.Path)
}

// WaitReady waits until the pod's readiness probe succeeds. It fails at once when the program ends.
func (p *Pod) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		err := p.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.process.Done():
			return fmt.Errorf("wait until pod %s is ready: it ended with code %d; the end of %s:\n%s",
				p.Name, p.ExitCode(), p.LogPath(), p.process.Tail())
		case <-ctx.Done():
			return fmt.Errorf("wait until pod %s is ready: %w: %w; the end of %s:\n%s",
				p.Name, ctx.Err(), err, p.LogPath(), p.process.Tail())
		case <-ticker.C:
		}
	}
}

// probe asks the readiness probe once.
func (p *Pod) probe(ctx context.Context) error {
	if p.ReadyURL() == "" {
		return errors.New("the manifest has no readiness probe over HTTP")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ReadyURL(), nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", p.ReadyURL(), err)
	}
	// As the kubelet does: the certificate is the program's own.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // See above.
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", p.ReadyURL(), err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("ask %s: it says %s", p.ReadyURL(), answer.Status)
	}
	return nil
}

// Tail is the end of what the program printed.
func (p *Pod) Tail() string { return p.process.Tail() }
