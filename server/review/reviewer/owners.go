package reviewer

import (
	"context"
	"strings"

	"fairlead.dev/api"
	"fairlead.dev/server/review/codeowners"
)

// CodeOwners reads the file of the forge's dialect as it is on the branch that the change goes to, which is where the forges
// read it. The path is empty where there is none.
func (h *History) CodeOwners(ctx context.Context, d codeowners.Dialect) (file *codeowners.File, path string, err error) {
	list, err := h.git.output(ctx, nil, append([]string{"ls-tree", "-z", "--full-tree", h.Tip, "--"}, d.Places()...)...)
	if err != nil {
		return nil, "", h.git.unreadable(h.Tip, err)
	}
	there := map[string]string{} // regular files only: a link's content is a name
	for entry := range strings.SplitSeq(string(list), "\x00") {
		what, name, _ := strings.Cut(entry, "\t")
		if f := strings.Fields(what); len(f) == 3 && f[1] == "blob" && strings.HasPrefix(f[0], "100") {
			there[name] = f[2]
		}
	}
	for _, place := range d.Places() {
		blob, ok := there[place]
		if !ok {
			continue
		}
		data, err := h.git.output(ctx, nil, "cat-file", "blob", blob)
		if err != nil {
			if ctx.Err() != nil {
				return nil, "", err
			}
			return nil, place, &api.Problem{Code: "codeowners-unreadable", Message: "who must be asked for a review is not known: " + place + " cannot be read: " + err.Error(),
				Hint: "see what `git -C " + h.git.dir + " show " + h.Tip + ":" + place + "` says"}
		}
		return codeowners.Parse(data, d), place, nil
	}
	return codeowners.Parse(nil, d), "", nil
}
