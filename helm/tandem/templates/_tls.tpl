{{/*
Two listeners may speak TLS: that of the gateways, to clients; and that of the verifiers, to gateways alone, which both sides
prove. Secrets are mounted as cert-manager fills them, with tls.crt, tls.key and ca.crt, and read again when they change.
*/}}

{{/* Names of the secrets. */}}
{{- define "tandem.publicSecret" -}}
{{ default (printf "%s-public-tls" (include "tandem.fullname" .)) .Values.tls.public.existingSecret }}
{{- end -}}

{{/* Takes (list $ "gateway") or (list $ "replica"). */}}
{{- define "tandem.internalSecret" -}}
{{- $root := index . 0 -}}
{{ default (printf "%s-%s-tls" (include "tandem.fullname" $root) (index . 1)) (index $root.Values.tls.internal.existingSecrets (index . 1)) }}
{{- end -}}

{{/* Options of a gateway, as a map. */}}
{{- define "tandem.gatewayTlsArguments" -}}
{{- if .Values.tls.public.enabled }}
tls-certificate-file: /etc/tandem/tls/public/tls.crt
tls-key-file: /etc/tandem/tls/public/tls.key
{{- if .Values.tls.public.clientCaSecret }}
tls-client-ca-file: /etc/tandem/tls/clients/ca.crt
{{- end }}
{{- end }}
{{- if .Values.tls.internal.enabled }}
verifier-ca-file: /etc/tandem/tls/internal/ca.crt
verifier-certificate-file: /etc/tandem/tls/internal/tls.crt
verifier-key-file: /etc/tandem/tls/internal/tls.key
verifier-tls-name: {{ include "tandem.replicaHost" . }}
{{- else }}
trust-network: true
{{- end }}
{{- end -}}

{{/* Options of a verifier, as a map. Without TLS it is the network policy that keeps others away. */}}
{{- define "tandem.verifierTlsArguments" -}}
{{- if .Values.tls.internal.enabled }}
tls-certificate-file: /etc/tandem/tls/internal/tls.crt
tls-key-file: /etc/tandem/tls/internal/tls.key
tls-client-ca-file: /etc/tandem/tls/internal/ca.crt
{{- else }}
trust-network: true
{{- end }}
{{- end -}}

{{/* Mounts. Takes (list $ "gateway"), (list $ "replica") or (list $ "test"). */}}
{{- define "tandem.tlsMounts" -}}
{{- range $name := include "tandem.tlsSecrets" . | fromYaml | keys | sortAlpha }}
- name: tls-{{ $name }}
  mountPath: /etc/tandem/tls/{{ $name }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* Volumes, likewise. */}}
{{- define "tandem.tlsVolumes" -}}
{{- range $name, $secret := include "tandem.tlsSecrets" . | fromYaml }}
- name: tls-{{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
    {{- if has $name (list "authority" "clients") }}
    # A key may lie beside it, which is nobody's here.
    items: [{key: ca.crt, path: ca.crt}]
    {{- end }}
{{- end }}
{{- end -}}

{{/* Secrets of a component's pods by the folder that they are mounted at. */}}
{{- define "tandem.tlsSecrets" -}}
{{- $root := index . 0 -}}
{{- $tls := $root.Values.tls -}}
{{- if and $tls.public.enabled (eq (index . 1) "test") }}
authority: {{ default (include "tandem.publicSecret" $root) $root.Values.test.authoritySecret }}
{{- with $root.Values.test.clientSecret }}
client: {{ . }}
{{- end }}
{{- end }}
{{- if and $tls.public.enabled (eq (index . 1) "gateway") }}
public: {{ include "tandem.publicSecret" $root }}
{{- with $tls.public.clientCaSecret }}
clients: {{ . }}
{{- end }}
{{- end }}
{{- if and $tls.internal.enabled (ne (index . 1) "test") }}
internal: {{ include "tandem.internalSecret" . }}
{{- end }}
{{- end -}}

{{/* Options of a client, as a map. */}}
{{- define "tandem.clientTlsArguments" -}}
{{- if .Values.tls.public.enabled }}
server-ca-file: /etc/tandem/tls/authority/ca.crt
{{- if .Values.test.clientSecret }}
server-certificate-file: /etc/tandem/tls/client/tls.crt
server-key-file: /etc/tandem/tls/client/tls.key
{{- end }}
{{- else }}
{}
{{- end }}
{{- end -}}
