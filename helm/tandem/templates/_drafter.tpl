{{/*
The drafter's container: a sidecar, so that it starts before the verifier, outlives it while requests run out, and starts
again alone. A dead drafter costs speed, never a request: so nobody asks whether it is ready.
*/}}
{{- define "tandem.drafterContainer" -}}
{{- $drafter := .Values.replica.drafter -}}
{{- $arguments := dict
  "target" (include "tandem.checkpoint" (list $ "target"))
  "draft-model" (include "tandem.checkpoint" (list $ "drafter"))
  "listen" "unix:/run/tandem/sockets/drafter.sock"
  "health-listen" "0.0.0.0:8712"
-}}
{{- if ne .Values.gpu.mode "none" -}}
{{- $_ := set $arguments "device" "cuda" -}}
{{- end -}}
{{- $arguments = merge $arguments (include "tandem.telemetryArguments" (list $ "drafter") | fromYaml) $drafter.options -}}
- name: drafter
  restartPolicy: Always
  image: {{ include "tandem.image" (list $ .Values.images.drafter) }}
  imagePullPolicy: {{ .Values.images.pullPolicy }}
  command: [tandem, drafter]
  args:
    {{- include "tandem.arguments" $arguments | trim | nindent 4 }}
  {{- with include "tandem.environment" (list $ "drafter" $drafter.env) }}{{ . | indent 2 }}{{ end }}
  ports:
    - name: drafter-health
      containerPort: 8712
    {{- include "tandem.metricsPort" (list $ "drafter") | nindent 4 }}
  livenessProbe:
    grpc:
      port: 8712
      service: grpc.health.v1.Health
    # It listens once its weights are read.
    initialDelaySeconds: {{ $drafter.startupSeconds }}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  securityContext:
    {{- include "tandem.containerSecurity" . | nindent 4 }}
  resources:
    {{- include "tandem.gpuResources" (list $ $drafter.resources) | nindent 4 }}
  volumeMounts:
    {{- include "tandem.replicaMounts" $ | nindent 4 }}
{{- end -}}
