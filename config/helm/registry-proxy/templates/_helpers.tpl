{{- define "registry-proxy.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What selects pods; called with a list of the root and the component. */ -}}
{{- define "registry-proxy.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "registry-proxy.labels" -}}
{{ include "registry-proxy.selector" . }}
{{ include "registry-proxy.release" (index . 0) }}
{{- end -}}

{{- define "registry-proxy.release" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "registry-proxy.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- define "registry-proxy.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "registry-proxy.containerSecurityContext" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- /* A claim; called with its name and its values. */ -}}
{{- define "registry-proxy.claim" -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ index . 0 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with (index . 1).storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ (index . 1).size }}
{{- end -}}

{{- define "registry-proxy.settings" -}}
{{ toYaml .Values.settings }}
{{- end -}}

{{- define "registry-proxy.nodesSettings" -}}
PROXY_URL: {{ default (printf "http://%s.%s.svc:3128" (include "registry-proxy.fullname" .) .Release.Namespace) .Values.nodes.proxyUrl | quote }}
REGISTRIES: {{ join " " .Values.nodes.registries | quote }}
REPLACE_FOREIGN: {{ .Values.nodes.replaceForeign | quote }}
CHECK_CONFIG_PATH: {{ .Values.nodes.checkConfigPath | quote }}
{{- with .Values.nodes.containerdDirectory }}
{{- if ne . "/etc/containerd" }}
CONTAINERD_CONFIG: {{ printf "%s/config.toml" . | quote }}
HOSTS_DIRECTORY: {{ printf "%s/certs.d" . | quote }}
{{- end }}
{{- end }}
{{- end -}}
