"""`autoglm deploy`: the Helm chart on a cluster, checked before and watched while it comes up. The extra `[deploy]`.

`cluster` reads the API server, `helm` applies the chart (by the helm program or by Helm as a library), `preflight` asks
the cluster about everything that the rendered chart needs, `rollout` follows the pods, `command` is the verb.
"""
