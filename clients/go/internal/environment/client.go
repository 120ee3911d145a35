// Package environment is what the programs of this module read from their environment.
package environment

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"tandem.dev/tandem"
)

// NewClient returns a client of the gateway that TANDEM_ADDRESS, TANDEM_API_KEY and TANDEM_CA_FILE name.
func NewClient() (*tandem.Client, error) {
	address := os.Getenv("TANDEM_ADDRESS")
	if address == "" {
		address = "127.0.0.1:8700"
	}
	options := []tandem.Option{tandem.WithAPIKey(os.Getenv("TANDEM_API_KEY"))}
	if path := os.Getenv("TANDEM_CA_FILE"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		authorities := x509.NewCertPool()
		if !authorities.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", path)
		}
		options = append(options, tandem.WithTLS(&tls.Config{RootCAs: authorities}))
	}
	return tandem.New(address, options...)
}
