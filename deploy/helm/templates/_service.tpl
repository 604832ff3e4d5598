{{- /* The parts that every service's pod has. All take {"root": $, "name": the service's name, …}. */ -}}

{{- define "converter.name" -}}
{{ printf "%s-%s" .root.Release.Name .name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "converter.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "converter.labels" -}}
{{ include "converter.selector" . }}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "converter.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "converter.container" -}}
name: {{ .name }}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .module | quote }}]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
envFrom:
  - configMapRef: { name: {{ include "converter.name" (dict "root" .root "name" "config") }} }
env:
  - name: NATS_NKEY_SEED_FILE
    value: /run/secrets/nats/{{ .user | default .name }}.seed
  {{- range .secrets }}
  - name: {{ . }}_FILE
    value: /run/secrets/converter/{{ . }}
  {{- end }}
  {{- range $variable, $value := .env }}
  - name: {{ $variable }}
    value: {{ $value | quote }}
  {{- end }}
volumeMounts:
  - { name: nats, mountPath: /run/secrets/nats, readOnly: true }
  {{- if .secrets }}
  - { name: secrets, mountPath: /run/secrets/converter, readOnly: true }
  {{- end }}
  - { name: work, mountPath: /tmp }
{{- end }}

{{- define "converter.volumes" -}}
- name: nats
  secret:
    secretName: {{ .root.Values.secrets.natsSeeds }}
    defaultMode: 0440
    items: [{ key: {{ .user | default .name }}.seed, path: {{ .user | default .name }}.seed }]
{{- if .secrets }}
- name: secrets
  secret:
    secretName: {{ .root.Values.secrets.name }}
    defaultMode: 0440
    items:
      {{- range .secrets }}
      - { key: {{ . }}, path: {{ . }} }
      {{- end }}
{{- end }}
- name: work
  emptyDir: { sizeLimit: {{ .workDirSize }} }
{{- end }}

{{- define "converter.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "converter.name" . }}
  labels: {{- include "converter.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "converter.selector" . | nindent 6 }}
{{- end }}
