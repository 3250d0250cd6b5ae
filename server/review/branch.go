package review

import (
	"context"
	"strings"
	"unicode"
)

const maxBranch = 60 // characters of a name that is made here; git and forges take more, and nobody reads them

// newBranch is a name for the change that is free here and at the remote, as far as that is known here.
func (t *tree) newBranch(ctx context.Context, remote, subject string, tk *ticket) string {
	name := slug(subject)
	if tk != nil {
		key := slug(strings.TrimPrefix(tk.Key, "#"))
		if exactKey.MatchString(tk.Key) {
			key = tk.Key // trackers look for it as it is
		}
		if !strings.Contains(strings.ToLower(name), strings.ToLower(key)) {
			name = strings.Trim(key+"-"+name, "-")
		}
	}
	if name == "" {
		name = "change"
	}
	if len(name) > maxBranch {
		name = name[:maxBranch]
		if i := strings.LastIndexByte(name, '-'); i > maxBranch/2 {
			name = name[:i]
		}
		name = strings.Trim(name, "-.")
	}
	free := name
	for n := 2; t.taken(ctx, remote, free); n++ {
		free = name + "-" + itoa(n)
	}
	return free
}

func (t *tree) taken(ctx context.Context, remote, name string) bool {
	return t.yes(ctx, "rev-parse", "--verify", "--quiet", "refs/heads/"+name) || t.yes(ctx, "rev-parse", "--verify", "--quiet", "refs/remotes/"+remote+"/"+name)
}

// slug makes of text what a branch's name may have anywhere.
func slug(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-")
}
