package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"fairlead.dev/debugadapter"
)

func newDebug(stdout, stderr io.Writer) *cobra.Command {
	var core, exe, service string
	c := &cobra.Command{
		Use:   "debug --core FILE (--exe FILE | --service NAME)",
		Short: "Say what is in a core file; debugging itself is your editor's (fairlead dap)",
		Long: `Debug opens a core file with the executable that left it, and writes why the process died, the stack with
its values, and where the other goroutines were. --service names an environment instead, in which the file lies: the
path is then the one that fairlead run and the editor have told.

To look around in it, open it in your editor, under the same adapter: launch
{"mode": "core", "coreFilePath": FILE, "exe": FILE}. docs/debugging.md has the set-up.`,
		Example: `  fairlead debug --core core.1234 --exe ./orders`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if core == "" || (exe == "") == (service == "") {
				return &usageError{errors.New("debug needs --core, and --exe or --service")}
			}
			f, err := findFolders()
			if err != nil {
				return err
			}
			h, err := dapHost(f, slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
			if err != nil {
				return err
			}
			config := map[string]any{"mode": "core", "coreFilePath": core}
			if exe != "" {
				config["exe"] = exe
			} else {
				config["service"] = service
			}
			if err := debugadapter.Describe(c.Context(), stdout, h, config, debugadapter.Options{Version: version}); err != nil {
				return fmt.Errorf("open the core file: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&core, "core", "", "the core `file`")
	c.Flags().StringVar(&exe, "exe", "", "the executable `file` that left it")
	c.Flags().StringVar(&service, "service", "", "`name` of the environment that it lies in")
	return c
}
