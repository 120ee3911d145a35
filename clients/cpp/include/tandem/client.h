#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "tandem/error.h"
#include "tandem/stream.h"
#include "tandem/v1/generation_service.pb.h"
#include "tandem/v1/model_service.pb.h"

namespace tandem {

// The most time that a call may take, retries included; none: no limit.
using Timeout = std::optional<std::chrono::nanoseconds>;

// What a client has to know.
struct ClientOptions {
  // HOST:PORT, or unix:/PATH for a Unix socket.
  std::string address = "127.0.0.1:8700";
  // File of the authorities (PEM) that the server's certificate comes from. Empty: plain text.
  std::string ca_file = {};
  // Sent with every call. Without TLS, whoever can read the network can read it. Empty: none.
  std::string api_key = {};
  // For calls that name no other.
  Timeout timeout = {};
};

// A Tandem server, over one connection that is opened at the first call. Any thread may use it.
//
// Calls that were refused before they began are tried again by themselves: while the server loads or drains, and as it
// asks when its queue is full. All calls throw Error when they fail; DEADLINE_EXCEEDED: it took too long, and the
// server gave it up.
class Client {
 public:
  // Sends nothing yet. Throws std::invalid_argument: the file cannot be read, or the key is no key.
  explicit Client(const ClientOptions& options = {});
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  // A whole text.
  v1::GenerateResponse generate(const v1::GenerationSpec& spec, Timeout timeout = {}) const;

  // A text as it is made. Failures show where it is read. May outlive the client.
  Stream stream(const v1::GenerationSpec& spec, Timeout timeout = {}) const;

  // Tokens of a prompt after encoding.
  int count_tokens(const v1::GenerationSpec& spec, Timeout timeout = {}) const;

  // The one model served, and its drafter.
  v1::Model model(Timeout timeout = {}) const;

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace tandem
