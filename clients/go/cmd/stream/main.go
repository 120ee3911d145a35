// Command stream prints a text as it is made: stream [PROMPT].
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"google.golang.org/protobuf/proto"

	"tandem.dev/tandem/internal/environment"
	tandemv1 "tandem.dev/tandem/v1"
)

func main() {
	prompt := "def read_lines(path):"
	if len(os.Args) > 1 {
		prompt = os.Args[1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := stream(ctx, prompt); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func stream(ctx context.Context, prompt string) error {
	client, err := environment.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	text, err := client.Stream(ctx, &tandemv1.GenerationSpec{
		Prompt:   &tandemv1.GenerationSpec_Text{Text: prompt},
		Stopping: &tandemv1.StoppingOptions{MaxTokens: proto.Int32(64)},
	})
	if err != nil {
		return err
	}
	defer text.Close()
	for {
		message, err := text.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Println()
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Print(message.GetDelta().GetText())
	}
}
