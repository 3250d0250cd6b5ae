package notify

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var secretName = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_.]{0,62}$`)

// Folder looks secrets up: a file of that name in dir, as a mounted Secret has it, or else the environment's variable
// FAIRLEAD_SECRET_NAME, in capitals and with "_" for what a variable cannot have.
func Folder(dir string) func(name string) (string, error) {
	return func(name string) (string, error) {
		if !secretName.MatchString(name) {
			return "", fmt.Errorf("%q is no secret's name", name)
		}
		if dir != "" {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil {
				if s := strings.TrimSpace(string(b)); s != "" {
					return s, nil
				}
				return "", fmt.Errorf("the secret %s is empty", name)
			}
			if !os.IsNotExist(err) {
				return "", fmt.Errorf("read the secret %s: %w", name, err)
			}
		}
		env := "FAIRLEAD_SECRET_" + strings.Map(func(r rune) rune {
			if r == '-' || r == '.' {
				return '_'
			}
			return r
		}, strings.ToUpper(name))
		if s := strings.TrimSpace(os.Getenv(env)); s != "" {
			return s, nil
		}
		if dir != "" {
			return "", fmt.Errorf("there is no secret %s: neither a file in %s nor a variable %s", name, dir, env)
		}
		return "", fmt.Errorf("there is no secret %s: no variable %s", name, env)
	}
}
