{{- define "tandem.publicTlsArguments" -}}
{}
{{- end -}}
{{- define "tandem.replicaClientTlsArguments" -}}
{}
{{- end -}}
{{- define "tandem.replicaTlsArguments" -}}
{}
{{- end -}}
{{- define "tandem.gatewayTlsMounts" -}}
{{- end -}}
{{- define "tandem.gatewayTlsVolumes" -}}
{{- end -}}
{{- define "tandem.verifierTlsMounts" -}}
{{- end -}}
{{- define "tandem.verifierTlsVolumes" -}}
{{- end -}}
{{- define "tandem.clientTlsArguments" -}}
{}
{{- end -}}
{{- define "tandem.clientTlsMounts" -}}
{{- end -}}
{{- define "tandem.clientTlsVolumes" -}}
{{- end -}}
