package syncer

import (
	"context"

	"fairlead.dev/api"
)

// Send brings one file's content into the pod whole, unless it is there.
func Send(ctx context.Context, pod Pod, d api.Digest, path string) error {
	st, err := pod.Status(ctx)
	if err != nil {
		return err
	}
	for _, has := range st.Blobs {
		if has == d {
			return nil
		}
	}
	var s Shipper
	var sh shipment
	return s.stageWhole(ctx, pod, st, Executable{Path: path, Digest: d}, &sh)
}
