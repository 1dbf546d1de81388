{{- define "pare.labels" -}}
app.kubernetes.io/name: pare
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "pare.selector" -}}
app.kubernetes.io/name: pare
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
