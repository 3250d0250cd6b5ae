package server

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/user"
	"strings"
)

// Owner names who runs this agent, for people: "user@host".
func Owner() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
		if i := strings.LastIndexByte(name, '\\'); i >= 0 { // Windows: DOMAIN\user
			name = name[i+1:]
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return name + "@" + host
}

// EnvironmentName is a DNS label (RFC 1123) that is the same for the same service, folder, owner and place, and no
// other: "shop-ada-3f9c2a1b". The folder is the main package's, so that it does not matter where the service is run from.
// It is short enough that a provider may append to it.
func EnvironmentName(service, dir, owner, place string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{service, dir, owner, place}, "\x00")))
	user, _, _ := strings.Cut(owner, "@")
	return cut(label(service), 20) + "-" + cut(label(user), 10) + "-" + hex.EncodeToString(sum[:4])
}

// label maps a name to the characters of a DNS label.
func label(s string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	if s := strings.Trim(b.String(), "-"); s != "" {
		return s
	}
	return "x"
}

func cut(s string, n int) string {
	if len(s) > n {
		s = strings.TrimRight(s[:n], "-")
	}
	return s
}
