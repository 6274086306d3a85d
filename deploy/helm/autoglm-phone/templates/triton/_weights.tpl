{{- /* where Triton finds the checkpoint; empty: the launcher's default */ -}}
{{- define "autoglm.checkpointPath" -}}
{{- if eq .Values.weights.source "baked" -}}{{ .Values.weights.bakedPath }}{{- else -}}/checkpoint{{- end -}}
{{- end -}}

{{- define "autoglm.weightsVolume" -}}
{{- $weights := .Values.weights -}}
{{- if eq $weights.source "pvc" }}
- name: checkpoint
  persistentVolumeClaim: {claimName: {{ $weights.pvc.claimName }}, readOnly: true}
{{- else if eq $weights.source "initContainer" }}
- name: checkpoint
  emptyDir: {sizeLimit: {{ $weights.initContainer.sizeLimit }}}
{{- else if eq $weights.source "image" }}
- name: checkpoint
  image:
    reference: {{ $weights.image.reference | quote }}
    pullPolicy: {{ $weights.image.pullPolicy }}
{{- else if eq $weights.source "hostPath" }}
- name: checkpoint
  hostPath: {path: {{ $weights.hostPath.path | quote }}, type: Directory}
{{- end }}
{{- end -}}

{{- define "autoglm.weightsMount" -}}
{{- $weights := .Values.weights -}}
{{- if ne $weights.source "baked" }}
- name: checkpoint
  mountPath: /checkpoint
  readOnly: true
  {{- if and (eq $weights.source "pvc") $weights.pvc.subPath }}
  subPath: {{ $weights.pvc.subPath | quote }}
  {{- else if and (eq $weights.source "image") $weights.image.subPath }}
  subPath: {{ $weights.image.subPath | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "autoglm.fetchWeights" -}}
{{- $weights := .Values.weights -}}
{{- if eq $weights.source "initContainer" }}
- name: fetch-weights
  image: {{ $weights.initContainer.image | quote }}
  {{- with $weights.initContainer.command }}
  command:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $weights.initContainer.args }}
  args:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $weights.initContainer.env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $weights.initContainer.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml $weights.initContainer.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: {drop: [ALL]}
  volumeMounts:
    - {name: checkpoint, mountPath: /checkpoint}
    - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end -}}

{{- define "autoglm.verifyWeights" -}}
{{- if .Values.weights.sha256 }}
- name: verify-weights
  image: {{ include "autoglm.image" (list . .Values.image.triton) | quote }}
  imagePullPolicy: {{ .Values.image.triton.pullPolicy }}
  command: [sha256sum, --check, --strict, /checksums/SHA256SUMS]
  workingDir: {{ include "autoglm.checkpointPath" . | quote }}
  resources:
    requests: {cpu: 500m, memory: 64Mi}
    limits: {memory: 256Mi}
  securityContext:
    {{- include "autoglm.restrictedContainer" . | nindent 4 }}
  volumeMounts:
    - {name: checksums, mountPath: /checksums, readOnly: true}
    {{- include "autoglm.weightsMount" . | nindent 4 }}
{{- end }}
{{- end -}}
