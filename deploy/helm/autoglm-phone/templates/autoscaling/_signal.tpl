{{- /* labels that the monitors put on this release's series */ -}}
{{- define "autoglm.seriesSelector" -}}
namespace="{{ .Release.Namespace }}",app_kubernetes_io_instance="{{ .Release.Name }}"
{{- end -}}

{{- /* requests in flight over all gateways: they exist while no Triton pod does, and count what has not reached one yet */ -}}
{{- define "autoglm.inFlightQuery" -}}
sum({__name__=~"vllm:num_requests_(running|waiting)",{{ include "autoglm.seriesSelector" . }}})
{{- end -}}

{{- /* refusals for want of a Triton in the last 5 minutes; a counter's first value is no increase, so new series count as well */ -}}
{{- define "autoglm.refusedQuery" -}}
{{- $series := printf "autoglm_gateway_request_failures_total{code=\"backend_unavailable\",%s}" (include "autoglm.seriesSelector" .) -}}
(sum(increase({{ $series }}[5m])) or vector(0)) + (sum({{ $series }} unless {{ $series }} offset 5m) or vector(0))
{{- end -}}

{{- /* a pod that was just made needs startupSeconds before it takes load off the others */ -}}
{{- define "autoglm.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Pods, value: {{ .Values.autoscaling.scaleUpPods }}, periodSeconds: {{ .Values.autoscaling.startupSeconds }}}
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownStabilizationSeconds }}
  policies:
    # one pod per drain
    - {type: Pods, value: 1, periodSeconds: {{ include "autoglm.tritonGrace" . }}}
{{- end -}}
