// Prints a text as it comes. The argument is its beginning.
#include <cstdlib>
#include <iostream>

#include "tandem/client.h"

namespace {

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

}  // namespace

int main(int count, char** arguments) try {
  tandem::ClientOptions options;
  options.address = variable("TANDEM_ADDRESS", "127.0.0.1:8700");
  options.ca_file = variable("TANDEM_CA_FILE", "");
  options.api_key = variable("TANDEM_API_KEY", "");
  const tandem::Client client(options);

  tandem::v1::GenerationSpec spec;
  spec.set_text(count > 1 ? arguments[1] : "import json\n");
  spec.mutable_stopping()->set_max_tokens(64);
  for (const auto& event : client.stream(spec)) std::cout << event.delta().text() << std::flush;
  std::cout << std::endl;
} catch (const std::exception& error) {
  std::cerr << error.what() << std::endl;
  return 1;
}
