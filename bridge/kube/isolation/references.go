package isolation

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// References are the objects of their own namespace that pods name.
type References struct {
	ConfigMaps, Secrets, Claims, Accounts []string // sorted
}

// rootCA is in every namespace; a controller puts it there.
const rootCA = "kube-root-ca.crt"

// Refer lists what pods name. Of the claims it has only those of the first pod: copies have their own.
func Refer(pods ...*corev1.PodSpec) References {
	configs := map[string]bool{}
	secrets, claims, accounts := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, p := range pods {
		if p == nil {
			continue
		}
		accounts[Account(p)] = true
		for _, r := range p.ImagePullSecrets {
			secrets[r.Name] = true
		}
		for _, c := range slices.Concat(p.InitContainers, p.Containers) {
			for _, e := range c.EnvFrom {
				if e.ConfigMapRef != nil {
					configs[e.ConfigMapRef.Name] = true
				}
				if e.SecretRef != nil {
					secrets[e.SecretRef.Name] = true
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom == nil {
					continue
				}
				if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
					configs[r.Name] = true
				}
				if r := e.ValueFrom.SecretKeyRef; r != nil {
					secrets[r.Name] = true
				}
			}
		}
		for _, v := range p.Volumes {
			switch {
			case v.ConfigMap != nil:
				configs[v.ConfigMap.Name] = true
			case v.Secret != nil:
				secrets[v.Secret.SecretName] = true
			case v.PersistentVolumeClaim != nil && i == 0:
				claims[v.PersistentVolumeClaim.ClaimName] = true
			case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
				secrets[v.CSI.NodePublishSecretRef.Name] = true
			case v.Projected != nil:
				for _, s := range v.Projected.Sources {
					if s.ConfigMap != nil {
						configs[s.ConfigMap.Name] = true
					}
					if s.Secret != nil {
						secrets[s.Secret.Name] = true
					}
				}
			}
		}
	}
	delete(configs, rootCA)
	sorted := func(m map[string]bool) []string { delete(m, ""); return slices.Sorted(maps.Keys(m)) }
	return References{ConfigMaps: sorted(configs), Secrets: sorted(secrets), Claims: sorted(claims), Accounts: sorted(accounts)}
}
