package dev.tandem.client;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.util.concurrent.DefaultThreadFactory;
import java.io.File;
import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/** Opens the channel of a client. */
final class Connection {
  private static final String UNIX = "unix:";
  private static final Pattern KEY = Pattern.compile("[!-~]+");
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  /** Both codes come before the first message, and the server says when to come back. */
  private static final Map<String, ?> RETRY_POLICY =
      Map.of(
          "maxAttempts", 5.0,
          "initialBackoff", "0.1s",
          "maxBackoff", "1s",
          "backoffMultiplier", 2.0,
          "retryableStatusCodes", List.of("UNAVAILABLE", "RESOURCE_EXHAUSTED"));

  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "loadBalancingConfig", List.of(Map.of("round_robin", Map.of())),
          "methodConfig", List.of(Map.of("name", List.of(Map.of()), "retryPolicy", RETRY_POLICY)));

  private Connection() {}

  /**
   * Opens a channel.
   *
   * @param address {@code HOST:PORT} or {@code unix:/PATH}
   * @param authorities certificates (PEM) to trust; null: plain text
   * @param apiKey key to send with every call; null: none
   * @throws IllegalArgumentException the file cannot be read or is no PEM, or the key is no key
   */
  static ManagedChannel open(String address, File authorities, String apiKey) {
    NettyChannelBuilder builder =
        address.startsWith(UNIX)
            ? unix(address.substring(UNIX.length()), credentials(authorities))
            : NettyChannelBuilder.forTarget(address, credentials(authorities));
    if (apiKey != null) {
      builder.intercept(MetadataUtils.newAttachHeadersInterceptor(authorization(apiKey)));
    }
    return builder.defaultServiceConfig(SERVICE_CONFIG).enableRetry().build();
  }

  private static NettyChannelBuilder unix(String path, ChannelCredentials credentials) {
    return NettyChannelBuilder.forAddress(UnixDomainSocketAddress.of(path), credentials)
        .channelFactory(UnixSocketChannel::new)
        .eventLoopGroup(UnixSockets.LOOP)
        .overrideAuthority("localhost");
  }

  private static Metadata authorization(String apiKey) {
    if (!KEY.matcher(apiKey).matches()) {
      throw new IllegalArgumentException("an API key is printable ASCII without spaces");
    }
    Metadata headers = new Metadata();
    headers.put(AUTHORIZATION, "Bearer " + apiKey);
    return headers;
  }

  private static ChannelCredentials credentials(File authorities) {
    if (authorities == null) {
      return InsecureChannelCredentials.create();
    }
    try {
      return TlsChannelCredentials.newBuilder().trustManager(authorities).build();
    } catch (IOException error) {
      throw new IllegalArgumentException("cannot read authorities from " + authorities, error);
    }
  }

  /** One thread for all Unix sockets of the process, from the first of them on; it keeps no program alive. */
  private static final class UnixSockets {
    static final EventLoopGroup LOOP = new NioEventLoopGroup(1, new DefaultThreadFactory("tandem-unix", true));
  }
}
