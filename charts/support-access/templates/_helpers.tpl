{{/* The labels of every object. */}}
{{- define "support-access.labels" -}}
app.kubernetes.io/name: support-access
app.kubernetes.io/part-of: support-access
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The labels by which the controller's pods are found. They never change. */}}
{{- define "support-access.selector" -}}
app.kubernetes.io/name: support-access
app.kubernetes.io/component: controller
{{- end }}

{{- define "support-access.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* What PodSecurity restricted asks of a pod, and of a container. */}}
{{- define "support-access.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "support-access.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where a pod may run. */}}
{{- define "support-access.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Refuses what could not work, before anything is installed. */}}
{{- define "support-access.validate" -}}
{{- if ne .Release.Namespace "support-access-system" }}
{{- fail (printf "namespace %s: support access runs in namespace support-access-system, because its admission policies name its ServiceAccounts there: give --namespace support-access-system" .Release.Namespace) }}
{{- end }}
{{- if and .Values.crds.enabled (ne .Release.Name "support-access") }}
{{- fail (printf "release %s: the CRDs belong to release support-access: name the release so, or give --skip-crds --set crds.enabled=false and install the CRDs yourself" .Release.Name) }}
{{- end }}
{{- if and (eq .Values.admission.stamp "Policy") (semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "admission.stamp: Policy needs Kubernetes 1.36 (MutatingAdmissionPolicy), and this server is %s: give --set admission.stamp=Manifest" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and .Values.cluster.caBundle (not .Values.cluster.server) }}
{{- fail "cluster.caBundle: give cluster.server too: the certificates are those of that address" }}
{{- end }}
{{- if .Values.defaultPolicy.create }}
{{- range .Values.defaultPolicy.spec.roles }}
{{- if not (has .name $.Values.offeredRoles) }}
{{- fail (printf "defaultPolicy.spec.roles: %s is not among offeredRoles: the controller could not bind it" .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
