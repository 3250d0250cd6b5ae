package journal

import "fairlead.dev/api"

// parseLine understands one line of output.
func parseLine(text string, line *api.Line) {
	*line = api.Line{Attrs: line.Attrs[:0]}
}
