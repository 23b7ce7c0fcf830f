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

{{/* The labels by which the gateway's pods are found. They never change. */}}
{{- define "support-access.gatewaySelector" -}}
app.kubernetes.io/name: support-access
app.kubernetes.io/component: gateway
{{- end }}

{{/* The Secret with the gateway's certificate. */}}
{{- define "support-access.gatewaySecret" -}}
{{ .Values.gateway.tls.secretName | default "support-access-gateway-tls" }}
{{- end }}

{{/* The name by which engineers' tools check the gateway's certificate. */}}
{{- define "support-access.gatewayName" -}}
{{- if .Values.gateway.tls.serverName -}}
{{ .Values.gateway.tls.serverName }}
{{- else if .Values.gateway.server -}}
{{ regexReplaceAll ":[0-9]+$" (urlParse .Values.gateway.server).host "" }}
{{- end }}
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
{{- if and .Values.guardCRDs.enabled .Values.crds.enabled (not .Values.crds.keep) }}
{{- fail "guardCRDs.enabled: with crds.keep=false an uninstall deletes the CRDs, which it would refuse: choose one of them" }}
{{- end }}
{{- include "support-access.validateGateway" . }}
{{- if .Values.defaultPolicy.create }}
{{- range .Values.defaultPolicy.spec.roles }}
{{- if not (has .name $.Values.offeredRoles) }}
{{- fail (printf "defaultPolicy.spec.roles: %s is not among offeredRoles: the controller could not bind it" .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "support-access.validateGateway" -}}
{{- with .Values.gateway }}
{{- if .enabled }}
{{- if and (eq .tls.mode "Secret") (not .tls.secretName) }}
{{- fail "gateway.tls.secretName: name the Secret with the gateway's certificate, or choose another gateway.tls.mode" }}
{{- end }}
{{- if and (eq .tls.mode "SelfMade") .tls.secretName (ne .tls.secretName "support-access-gateway-tls") }}
{{- fail "gateway.tls.secretName: with mode SelfMade the Secret is support-access-gateway-tls: leave it empty" }}
{{- end }}
{{- if and (eq .tls.mode "CertManager") (not .tls.issuerRef.name) }}
{{- fail "gateway.tls.issuerRef.name: name the issuer of the gateway's certificate" }}
{{- end }}
{{- if and (eq .tls.mode "CertManager") (not .server) (not .tls.serverName) }}
{{- fail "gateway.server: give it, or gateway.tls.serverName: cert-manager is to be asked for a name" }}
{{- end }}
{{- if and .caBundle (not .server) }}
{{- fail "gateway.caBundle: give gateway.server too: the certificates are those of that address" }}
{{- end }}
{{- if and .audit.persistence.enabled (gt (int .replicas) 1) }}
{{- fail "gateway.replicas: with gateway.audit.persistence there is one replica: each needs a log of its own; with gateway.audit.postgres several share one" }}
{{- end }}
{{- if and .audit.postgres.secret .audit.persistence.enabled }}
{{- fail "gateway.audit.postgres.secret: with gateway.audit.persistence the log is on a volume: choose one of them" }}
{{- end }}
{{- if and .audit.postgres.secret (not .audit.keySecret) }}
{{- fail "gateway.audit.keySecret: give it with gateway.audit.postgres: the replicas sign one log with one key, and none makes it" }}
{{- end }}
{{- if and .audit.postgres.tls.caSecret (has .audit.postgres.tls.mode (list "require" "disable")) }}
{{- fail (printf "gateway.audit.postgres.tls.caSecret: with mode %s nobody asks whose certificate it is: choose verify-full or verify-ca" .audit.postgres.tls.mode) }}
{{- end }}
{{- if and .service.nodePort (eq .service.type "ClusterIP") }}
{{- fail "gateway.service.nodePort: needs gateway.service.type NodePort or LoadBalancer" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.defaultPolicy.create (has "Gateway" (.Values.defaultPolicy.spec.transports | default list)) (not (and .Values.gateway.enabled .Values.gateway.server)) }}
{{- fail "defaultPolicy.spec.transports: Gateway needs gateway.enabled and gateway.server: where do engineers reach it?" }}
{{- end }}
{{- end }}

{{/* Whether there is a Secret for the receiver of OpenTelemetry, as a word or none. */}}
{{- define "support-access.otlpSecrets" -}}
{{- with .Values.gateway.audit.otlp }}
{{- if and .url (or .secret .caSecret) -}}yes{{- end }}
{{- end }}
{{- end }}
