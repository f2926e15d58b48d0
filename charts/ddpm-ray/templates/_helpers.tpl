{{- define "ddpm-ray.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end }}

{{/* What tells the operator's pods from others; the attempts' NetworkPolicies let in exactly these. */}}
{{- define "ddpm-ray.selector" -}}
app.kubernetes.io/name: ddpm-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ddpm-ray.labels" -}}
{{ include "ddpm-ray.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ddpm-ray
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "ddpm-ray.templates" -}}
{{ include "ddpm-ray.name" . }}-templates
{{- end }}

{{- define "ddpm-ray.key" -}}
{{ include "ddpm-ray.name" . }}-key
{{- end }}
