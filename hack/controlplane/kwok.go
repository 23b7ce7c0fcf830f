package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// NodeName is the name of the node that kwok plays.
const NodeName = "kwok"

// kwokConfig makes every pod of the node run, print the same log, run commands on this machine and echo what is sent
// to any of its ports. What is ours to fill in stands in [[ ]]: the other templates are kwok's own.
const kwokConfig = `apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
metadata: {name: kwok}
options:
  cidr: 10.244.0.0/16
  nodeIP: 127.0.0.1
  nodePort: [[.Port]]
  serverAddress: 127.0.0.1:[[.Port]]
  tlsCertFile: [[.Certificate]]
  tlsPrivateKeyFile: [[.Key]]
  manageAllNodes: true
  enableDebuggingHandlers: true
  nodePlayStageParallelism: 2
  podPlayStageParallelism: 4
  nodeLeaseParallelism: 1
  nodeLeaseDurationSeconds: 40
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterExec
metadata: {name: everywhere}
spec:
  execs:
  - local: {workDir: [[.WorkDir]]}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata: {name: everywhere}
spec:
  logs:
  - {logsFile: [[.Log]]}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterAttach
metadata: {name: everywhere}
spec:
  attaches:
  - {logsFile: [[.Log]]}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterPortForward
metadata: {name: everywhere}
spec:
  forwards:
  - {command: [cat]}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-becomes-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}
  next:
    statusTemplate: |
      phase: Running
      conditions:
      {{ range NodeConditions }}
      - type: {{ .type | Quote }}
        status: {{ .status | Quote }}
        reason: {{ .reason | Quote }}
        message: {{ .message | Quote }}
        lastHeartbeatTime: {{ Now | Quote }}
        lastTransitionTime: {{ Now | Quote }}
      {{ end }}
      addresses:
      - {type: InternalIP, address: {{ NodeIP | Quote }}}
      - {type: Hostname, address: {{ NodeName | Quote }}}
      daemonEndpoints:
        kubeletEndpoint: {Port: {{ NodePort }}}
      nodeInfo:
        {kubeletVersion: kwok, kubeProxyVersion: kwok, containerRuntimeVersion: kwok, osImage: kwok, kernelVersion: kwok,
        operatingSystem: linux, architecture: amd64, bootID: "", machineID: "", systemUUID: ""}
      allocatable: {cpu: "64", memory: 256Gi, pods: "10000"}
      capacity: {cpu: "64", memory: 256Gi, pods: "10000"}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Pending]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      startTime: {{ $now | Quote }}
      hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
      podIP: {{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) | Quote }}
      conditions:
      {{ range $type := list "Initialized" "PodReadyToStartContainers" "ContainersReady" "Ready" }}
      - {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        ready: true
        started: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: job-pod-succeeds}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    [[- range .Left ]]
    - {key: .metadata.namespace, operator: NotIn, values: [ [[- . -]] ]}
    [[- end ]]
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Running]}
    - {key: '.metadata.ownerReferences.[].kind', operator: In, values: [Job]}
  next:
    statusTemplate: |
      phase: Succeeded
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        ready: false
        started: false
        restartCount: 0
        state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ Now | Quote }}, finishedAt: {{ Now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
  next:
    delete: true
`

// startNode starts the scheduler and kwok, and waits until its node is ready.
func (cp *ControlPlane) startNode(ctx context.Context, client kubernetes.Interface) error {
	if err := cp.writeKwokConfig(); err != nil {
		return err
	}
	if err := cp.AppendPodLog("the pod has started"); err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   NodeName,
		Labels: map[string]string{corev1.LabelHostname: NodeName, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64"},
	}}
	if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create node %q: %w", NodeName, err)
	}
	if err := cp.run("kube-scheduler", cp.binaries.Scheduler, cp.schedulerArgs()); err != nil {
		return err
	}
	args := []string{"--config=" + cp.file("kwok.yaml"), "--kubeconfig=" + cp.file("kwok.kubeconfig")}
	if err := cp.run("kwok", cp.binaries.Kwok, args); err != nil {
		return err
	}
	return cp.until(ctx, "the node is ready", nodeReady(client))
}

func (cp *ControlPlane) writeKwokConfig() error {
	parsed, err := template.New("kwok").Delims("[[", "]]").Parse(kwokConfig)
	if err != nil {
		return fmt.Errorf("parse the configuration of kwok: %w", err)
	}
	workDir := cp.file("containers")
	if err := os.MkdirAll(workDir, 0o700); err != nil {
		return fmt.Errorf("create the folder that exec runs in: %w", err)
	}
	var rendered bytes.Buffer
	values := map[string]any{
		"Port": cp.ports.kubelet, "WorkDir": workDir, "Log": cp.podLogPath(),
		"Left": cp.options.LeaveJobs, "Certificate": cp.file("kubelet.crt"), "Key": cp.file("kubelet.key"),
	}
	if err := parsed.Execute(&rendered, values); err != nil {
		return fmt.Errorf("render the configuration of kwok: %w", err)
	}
	if err := os.WriteFile(cp.file("kwok.yaml"), rendered.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the configuration of kwok: %w", err)
	}
	return nil
}

// AppendPodLog adds a line to the log that all pods of the kwok node share; whoever follows or is attached sees it.
func (cp *ControlPlane) AppendPodLog(line string) error {
	file, err := os.OpenFile(cp.podLogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of pods: %w", err)
	}
	defer func() { _ = file.Close() }()
	// The container runtimes' format: time, stream, F for a full line, and the line.
	if _, err := fmt.Fprintf(file, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), line); err != nil {
		return fmt.Errorf("write to the log of pods: %w", err)
	}
	return nil
}

func (cp *ControlPlane) podLogPath() string { return cp.file("pods.log") }

func nodeReady(client kubernetes.Interface) func(context.Context) error {
	return func(ctx context.Context) error {
		node, err := client.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("get node %q: %w", NodeName, err)
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errNodeNotReady
	}
}
