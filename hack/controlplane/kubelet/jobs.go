package kubelet

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"supportaccess.dev/operator/hack/controlplane"
)

const (
	jobsEvery = 100 * time.Millisecond
	// jobTimeout bounds one run of a Job's program.
	jobTimeout = 5 * time.Minute
)

// Jobs plays the pods that the cluster makes for Jobs, a chart's hooks among them.
type Jobs struct {
	controlPlane *controlplane.ControlPlane
	client       kubernetes.Interface
	options      Options
	namespace    string
	played       map[string]bool
}

// PlayJobs plays every pod of a Job in the namespace, one after the other, until the context ends. The control plane
// must have kwok, which says that the pods run, and must leave it the Jobs of the namespace. PlayJobs returns what
// went wrong with the playing; how a program ended, the pod's status says. Of the options, Binary, Dir and Env count.
func PlayJobs(ctx context.Context, cp *controlplane.ControlPlane, namespace string, options Options) error {
	client, err := kubernetes.NewForConfig(cp.AdminConfig())
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	j := &Jobs{controlPlane: cp, client: client, options: options, namespace: namespace, played: map[string]bool{}}
	ticker := time.NewTicker(jobsEvery)
	defer ticker.Stop()
	for {
		if err := j.playAll(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (j *Jobs) playAll(ctx context.Context) error {
	pods, err := j.client.CoreV1().Pods(j.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the pods of %s: %w", j.namespace, err)
	}
	for _, pod := range pods.Items {
		if !runsForJob(&pod) || j.played[string(pod.UID)] {
			continue
		}
		j.played[string(pod.UID)] = true
		if err := j.play(ctx, &pod); err != nil {
			return err
		}
	}
	return nil
}

func runsForJob(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "Job" && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil
}

// play runs a pod's program to its end and reports it, as the kubelet would.
func (j *Jobs) play(ctx context.Context, object *corev1.Pod) error {
	pod, err := play(ctx, j.controlPlane, j.options, object)
	if err != nil {
		return errors.Join(err, j.report(ctx, object, 128, err.Error()))
	}
	timer := time.NewTimer(jobTimeout)
	defer timer.Stop()
	select {
	case <-pod.Done():
	case <-ctx.Done():
		return pod.Stop()
	case <-timer.C:
		if err := pod.Stop(); err != nil {
			return err
		}
	}
	return j.report(ctx, object, pod.ExitCode(), pod.Tail())
}

// report writes how the program ended into the pod's status.
func (j *Jobs) report(ctx context.Context, pod *corev1.Pod, code int, message string) error {
	phase, reason := corev1.PodSucceeded, "Completed"
	if code != 0 {
		phase, reason = corev1.PodFailed, "Error"
	}
	now := metav1.Now()
	status := corev1.ContainerStatus{
		Name:  pod.Spec.Containers[0].Name,
		Image: pod.Spec.Containers[0].Image,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: int32(code), Reason: reason, Message: message, StartedAt: now, FinishedAt: now, //nolint:gosec // Codes are bytes.
		}},
	}
	pods := j.client.CoreV1().Pods(pod.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		current, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Status.Phase, current.Status.ContainerStatuses = phase, []corev1.ContainerStatus{status}
		_, err = pods.UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("report the end of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
