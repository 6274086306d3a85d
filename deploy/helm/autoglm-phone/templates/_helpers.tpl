{{- define "autoglm.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "autoglm.gatewayName" -}}{{ include "autoglm.fullname" . }}-gateway{{- end -}}
{{- define "autoglm.tritonName" -}}{{ include "autoglm.fullname" . }}-triton{{- end -}}

{{- define "autoglm.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "autoglm.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* selector labels of a component: list ROOT COMPONENT */ -}}
{{- define "autoglm.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* what stands under `metadata:` of a cluster-wide object: list ROOT NAME COMPONENT [ANNOTATIONS [LABELS]] */ -}}
{{- define "autoglm.clusterMetadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 }}
labels:
  {{- include "autoglm.selectorLabels" (list $root (index . 2)) | nindent 2 }}
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/part-of: autoglm-phone
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
  {{- $given := concat . (list dict dict) }}
  {{- with merge (dict) (gt (len .) 4 | ternary (index $given 4) dict) $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (gt (len .) 3 | ternary (index $given 3) dict) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "autoglm.metadata" -}}
{{ include "autoglm.clusterMetadata" . }}
namespace: {{ (index . 0).Release.Namespace }}
{{- end -}}

{{- /* list ROOT IMAGE */ -}}
{{- define "autoglm.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := $image.repository -}}
{{- if and $root.Values.global.imageRegistry (not (regexMatch "^[^/]+[.:][^/]*/" $repository)) -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" $root.Values.global.imageRegistry) $repository -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* what every pod has: list ROOT */ -}}
{{- define "autoglm.podBasics" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "autoglm.serviceAccountName" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "autoglm.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "autoglm.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* options as flags, sorted: dict NAME VALUE; a list repeats its flag, a boolean becomes --name or --no-name */ -}}
{{- define "autoglm.flags" -}}
{{- range $name, $value := . }}
{{- range (kindIs "slice" $value | ternary $value (list $value)) }}
{{- if kindIs "bool" . }}
- {{ printf "--%s%s" (ternary "" "no-" .) $name | quote }}
{{- else if kindIs "float64" . }}
- {{ printf "--%s=%s" $name (toString (ternary (int64 .) . (eq (floor .) .))) | quote }}
{{- else }}
- {{ printf "--%s=%s" $name (toString .) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* a Kubernetes quantity in MiB, rounded up */ -}}
{{- define "autoglm.mebibytes" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" -}}
{{- $bytes := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- if not (hasKey $bytes $unit) -}}{{- fail (printf "%q is not a quantity in bytes, such as 512Mi or 4Gi." $text) -}}{{- end -}}
{{- divf (mulf $number (index $bytes $unit)) 1048576.0 | ceil | int64 -}}
{{- end -}}

{{- /* memory of a gateway for the bodies of all requests together: half of its limit; empty without a limit */ -}}
{{- define "autoglm.bodiesMebibytes" -}}
{{- with dig "limits" "memory" "" .Values.gateway.resources -}}
{{- div (include "autoglm.mebibytes" . | int64) 2 -}}
{{- end -}}
{{- end -}}

{{- define "autoglm.autoscaled" -}}
{{- if ne .Values.autoscaling.mode "none" }}true{{ end -}}
{{- end -}}

{{- define "autoglm.maxTritonReplicas" -}}
{{- if include "autoglm.autoscaled" . -}}{{ .Values.autoscaling.maxReplicas }}{{- else -}}{{ .Values.triton.replicas }}{{- end -}}
{{- end -}}

{{- /* ---- drain, in seconds ---- */ -}}

{{- /* of the gateway: what it has accepted may wait for a place and then generate */ -}}
{{- define "autoglm.gatewayDrain" -}}
{{- add .Values.gateway.limits.maxWaitSeconds .Values.drain.maxGenerationSeconds -}}
{{- end -}}

{{- define "autoglm.tritonGrace" -}}
{{- $drain := .Values.drain -}}
{{- .Values.triton.terminationGracePeriodSeconds | default (add $drain.endpointLagSeconds $drain.maxGenerationSeconds $drain.marginSeconds) | int64 -}}
{{- end -}}

{{- define "autoglm.gatewayGrace" -}}
{{- $drain := .Values.drain -}}
{{- .Values.gateway.terminationGracePeriodSeconds | default (add $drain.endpointLagSeconds (include "autoglm.gatewayDrain" . | int64) $drain.marginSeconds) | int64 -}}
{{- end -}}

{{- /* ---- scheduling ---- */ -}}

{{- /* list ROOT COMPONENT GIVEN: null spreads over nodes */ -}}
{{- define "autoglm.topologySpread" -}}
{{- $root := index . 0 -}}
{{- $given := index . 2 -}}
{{- if kindIs "invalid" $given }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "autoglm.selectorLabels" (list $root (index $ 1)) | nindent 8 }}
    # without it the pods of the last version count too, and a rollout ends lopsided
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- else if $given }}
topologySpreadConstraints:
  {{- toYaml $given | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "autoglm.probeTimes" -}}
periodSeconds: {{ .periodSeconds }}
timeoutSeconds: {{ .timeoutSeconds }}
failureThreshold: {{ .failureThreshold }}
{{- end -}}
