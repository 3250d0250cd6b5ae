// Command server is Gitea, unchanged, for the tests of what talks to a forge. It is a module of its own, so that Gitea's
// dependencies are not the project's. Package test/gitea starts it, test/run builds it.
package main

import (
	"os"

	"code.gitea.io/gitea/cmd"
	"code.gitea.io/gitea/modules/log"
	"code.gitea.io/gitea/modules/setting"
)

const version = "1.26.0"

func main() {
	setting.AppVer = version
	app := cmd.NewMainApp(cmd.AppVersion{Version: version})
	err := cmd.RunMainApp(app, os.Args...) // it has told the error
	log.GetManager().Close()
	if err != nil {
		os.Exit(1)
	}
}
